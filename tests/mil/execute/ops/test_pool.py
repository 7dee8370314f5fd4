import numpy as np
import pytest

from tests.mil.operations import check, floats

X = floats(1, 2, 7, 6)


def pooled(function, kernel, strides, pads, sizes):
    """Pools by definition; `function` sees the part of each window that is not padding."""
    out = np.zeros((1, 2, *sizes), np.float32)
    for row, column in np.ndindex(*sizes):
        bounds = []
        for at, k, s, (before, after), n in zip(
            (row, column), kernel, strides, pads, X.shape[2:], strict=True
        ):
            first = at * s - before
            bounds += [(max(first, 0), min(first + k, n), min(first + k, n + after) - first)]
        (a, b, height), (c, d, width) = bounds
        out[..., row, column] = function(X[..., a:b, c:d], height * width)
    return out


def largest(window, _):
    return window.max((-1, -2))


def mean(window, _):
    return window.mean((-1, -2))


def mean_with_padding(window, count):
    return window.sum((-1, -2)) / count


def length(window, _):
    return np.sqrt((window**2).sum((-1, -2)))


CASES = [
    ([2, 2], [2, 2], {"pad_type": "valid"}, [(0, 0), (0, 0)], (3, 3)),
    ([3, 2], [1, 2], {"pad_type": "custom", "pad": [1, 0, 0, 1]}, [(1, 0), (0, 1)], (6, 3)),
    ([3, 3], [2, 2], {"pad_type": "same"}, [(1, 1), (0, 1)], (4, 3)),
    ([2, 2], [2, 2], {"pad_type": "valid", "ceil_mode": True}, [(0, 0), (0, 0)], (4, 3)),
    ([2, 2], [3, 3], {"pad_type": "custom", "pad": [1, 1, 1, 1], "ceil_mode": True},
     [(1, 1), (1, 1)], (3, 3)),
]


@pytest.mark.parametrize(("kernel", "strides", "padding", "pads", "sizes"), CASES)
@pytest.mark.parametrize(("kind", "function", "arguments"), [
    ("max_pool", largest, {}), ("avg_pool", mean_with_padding, {}),
    ("avg_pool", mean, {"exclude_padding_from_average": True}), ("l2_pool", length, {}),
])
def test_pool(kind, function, arguments, kernel, strides, padding, pads, sizes):
    expected = pooled(function, kernel, strides, pads, sizes)

    check(kind, expected, x=X, kernel_sizes=kernel, strides=strides, **padding, **arguments)


def test_pool_in_one_and_three_dimensions():
    x = floats(1, 1, 4)

    check("max_pool", x.reshape(1, 1, 2, 2).max(-1), x=x, kernel_sizes=[2], strides=[2],
          pad_type="valid")
    check("avg_pool", X.reshape(1, 2, 7, 6, 1).mean((2, 3), keepdims=True),
          x=X.reshape(1, 2, 7, 6, 1), kernel_sizes=[7, 6, 1], pad_type="valid")
