import numpy as np
import pytest

from tests.mil.operations import check, const, floats

X = floats(2, 4, 3, 5)
GAMMA, BETA = floats(4, seed=1), floats(4, seed=2)


def normal(x, axes, epsilon=1e-5):
    mean = x.mean(axes, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(axes, keepdims=True) + epsilon)


def wide(values, axis=1):
    return values.reshape([-1 if i == axis else 1 for i in range(4)])


def test_batch_norm():
    mean, variance = floats(4, seed=3), np.abs(floats(4, seed=4))
    plain = (X - wide(mean)) / np.sqrt(wide(variance) + np.float32(1e-5))

    check("batch_norm", plain, x=X, mean=const(mean), variance=const(variance))
    check("batch_norm", plain * wide(GAMMA) + wide(BETA), x=X, mean=const(mean),
          variance=const(variance), gamma=const(GAMMA), beta=const(BETA))


def test_instance_norm():
    check("instance_norm", normal(X, (2, 3), 1e-3) * wide(GAMMA) + wide(BETA), x=X,
          gamma=const(GAMMA), beta=const(BETA), epsilon=1e-3)
    check("instance_norm", np.zeros((2, 4, 1), np.float32), x=floats(2, 4, 1))


def test_l2_norm():
    expected = X / np.sqrt((X**2).sum((1, 2, 3), keepdims=True) + 1e-6)

    check("l2_norm", expected.astype(np.float32), x=X)


@pytest.mark.parametrize("axes", [[-1], [1], [2, 3], [1, 3], [3, 1], None])
def test_layer_norm_over_any_axes(axes):
    normalized = tuple(range(4)) if axes is None else tuple(axis % 4 for axis in axes)
    inner = [X.shape[axis] for axis in sorted(normalized)]
    gamma, beta = floats(*inner, seed=5), floats(*inner, seed=6)
    broad = [X.shape[i] if i in normalized else 1 for i in range(4)]
    expected = normal(X, normalized) * gamma.reshape(broad) + beta.reshape(broad)

    check("layer_norm", expected, x=X, axes=axes, gamma=const(gamma), beta=const(beta))


def test_local_response_norm():
    padded = np.pad(X**2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    around = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    expected = X / (2 + 0.1 / 3 * around) ** 0.75

    check("local_response_norm", expected.astype(np.float32), x=X, size=3, alpha=0.1, k=2.0)
