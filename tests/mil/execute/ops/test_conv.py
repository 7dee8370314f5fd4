import itertools

import numpy as np
import pytest

from tests.mil.operations import check, const, floats


def convolved(x, weight, strides, pads, dilations, groups):
    """A convolution by its definition: `pads` are (before, after) for each dimension."""
    x = np.pad(x, [(0, 0), (0, 0), *pads])
    kernel = weight.shape[2:]
    sizes = [(n - (k - 1) * d - 1) // s + 1
             for n, k, d, s in zip(x.shape[2:], kernel, dilations, strides, strict=True)]
    out = np.zeros((x.shape[0], weight.shape[0], *sizes), np.float64)
    per_group = weight.shape[0] // groups
    for channel, at in itertools.product(range(weight.shape[0]), np.ndindex(*kernel)):
        first = channel // per_group * weight.shape[1]
        where = tuple(slice(p * d, p * d + (n - 1) * s + 1, s)
                      for p, d, n, s in zip(at, dilations, sizes, strides, strict=True))
        part = x[:, first:first + weight.shape[1]][(slice(None), slice(None), *where)]
        taps = weight[(channel, slice(None), *at)]
        out[:, channel] += np.tensordot(part, taps, (1, 0))
    return out.astype(np.float32)


@pytest.mark.parametrize(("rank", "strides", "pad", "dilations", "groups"), [
    (1, [1], [0, 0], [1], 1), (1, [2], [1, 2], [2], 1), (2, [1, 1], [1, 1, 1, 1], [1, 1], 1),
    (2, [2, 1], [0, 1, 2, 1], [1, 2], 2), (2, [1, 1], [0, 0, 0, 0], [1, 1], 4),
    (3, [1, 2, 1], [1, 1, 0, 0, 1, 1], [1, 1, 1], 1),
])
def test_conv_with_custom_padding(rank, strides, pad, dilations, groups):
    x, weight = floats(2, 4, *[7, 8, 6][:rank]), floats(4, 4 // groups, *[3, 2, 3][:rank], seed=1)
    bias = floats(4, seed=2)
    pads = list(zip(pad[::2], pad[1::2], strict=True))
    expected = convolved(x, weight, strides, pads, dilations, groups)

    check("conv", expected + bias.reshape(-1, *[1] * rank), x=x, weight=const(weight),
          bias=const(bias), strides=strides, pad_type="custom", pad=pad, dilations=dilations,
          groups=groups, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("pad_type", "pads"), [
    ("valid", [(0, 0), (0, 0)]), ("same", [(1, 1), (0, 1)]), ("same_lower", [(1, 1), (1, 0)]),
])
def test_named_padding(pad_type, pads):
    x, weight = floats(1, 2, 7, 8), floats(3, 2, 3, 2, seed=1)

    check("conv", convolved(x, weight, [2, 1], pads, [1, 1], 1), x=x, weight=const(weight),
          strides=[2, 1], pad_type=pad_type, rtol=1e-4, atol=1e-5)


def spread(x, weight, strides, dilations, groups):
    """A transposed convolution by its definition, uncropped."""
    kernel = weight.shape[2:]
    sizes = [(n - 1) * s + (k - 1) * d + 1
             for n, s, k, d in zip(x.shape[2:], strides, kernel, dilations, strict=True)]
    out = np.zeros((x.shape[0], weight.shape[1] * groups, *sizes), np.float32)
    for channel, at in itertools.product(range(x.shape[1]), np.ndindex(*kernel)):
        first = channel // (x.shape[1] // groups) * weight.shape[1]
        where = tuple(slice(p * d, p * d + (n - 1) * s + 1, s)
                      for p, d, n, s in zip(at, dilations, x.shape[2:], strides, strict=True))
        for o in range(weight.shape[1]):
            target = out[(slice(None), first + o, *where)]
            target += x[:, channel] * weight[(channel, o, *at)]
    return out


@pytest.mark.parametrize(("arguments", "crop"), [
    ({}, np.s_[..., :, :]),
    ({"pad_type": "custom", "pad": [1, 0, 0, 2]}, np.s_[..., 1:, :-2]),
    ({"pad_type": "same"}, np.s_[..., :8, 1:-1]),
    ({"pad_type": "custom", "pad": [1, 0, 0, 0], "output_shape": [1, 4, 6, 7]},
     np.s_[..., 1:7, :7]),
])
def test_conv_transpose(arguments, crop):
    x, weight = floats(1, 4, 4, 7), floats(4, 2, 3, 3, seed=1)
    bias = floats(4, seed=2)
    expected = (spread(x, weight, [2, 1], [1, 1], 2) + bias[:, None, None])[crop]

    check("conv_transpose", expected, x=x, weight=const(weight), bias=const(bias), groups=2,
          strides=[2, 1], rtol=1e-4, atol=1e-5, **arguments)


def test_conv_transpose_beyond_its_full_size_is_bias():
    x, weight, bias = floats(1, 1, 3), floats(1, 1, 2, seed=1), floats(1, seed=2)
    full = spread(x, weight, [2], [1], 1)
    expected = np.pad(full, ((0, 0), (0, 0), (0, 1))) + bias

    check("conv_transpose", expected, x=x, weight=const(weight), bias=const(bias), strides=[2],
          output_shape=[1, 1, 7])
