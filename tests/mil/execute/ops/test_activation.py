import math

import numpy as np
import pytest

from tests.mil.operations import check, const, floats

X = floats(2, 3, 4)
A, B = 0.3, 1.5


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def per_channel(values):
    return np.array(values, np.float32)[None, :, None]


@pytest.mark.parametrize(("kind", "expected", "arguments"), [
    ("clamped_relu", np.minimum(B, np.where(X >= 0, X, A * X)), {"alpha": A, "beta": B}),
    ("elu", np.where(X > 0, X, A * (np.exp(X) - 1)), {"alpha": A}),
    ("gelu", 0.5 * X * (1 + np.vectorize(math.erf)(X / 2**0.5)), {}),
    ("gelu", 0.5 * X * (1 + np.tanh((2 / np.pi) ** 0.5 * (X + 0.044715 * X**3))),
     {"mode": "TANH_APPROXIMATION"}),
    ("gelu", X * sigmoid(1.702 * X), {"mode": "SIGMOID_APPROXIMATION"}),
    ("leaky_relu", np.where(X >= 0, X, A * X), {"alpha": A}),
    ("linear_activation", A * X + B, {"alpha": A, "beta": B}),
    ("prelu", np.where(X > 0, X, per_channel([1, 2, 3]) * X), {"alpha": const([1.0, 2.0, 3.0])}),
    ("relu", np.maximum(X, 0), {}),
    ("relu6", np.minimum(np.maximum(X * 9, 0), 6), {"x": X * 9}),
    ("scaled_tanh", A * np.tanh(B * X), {"alpha": A, "beta": B}),
    ("sigmoid", sigmoid(X), {}),
    ("sigmoid_hard", np.clip(A * X + 0.5, 0, 1), {"alpha": A, "beta": 0.5}),
    ("silu", X * sigmoid(X), {}),
    ("softplus", np.log(1 + np.exp(X)), {}),
    ("softplus_parametric", per_channel([1, 2, 3]) * np.log(1 + np.exp(per_channel([3, 2, 1]) * X)),
     {"alpha": const([1.0, 2.0, 3.0]), "beta": const([3.0, 2.0, 1.0])}),
    ("softmax", np.exp(X) / np.exp(X).sum(-1, keepdims=True), {}),
    ("softmax", np.exp(X) / np.exp(X).sum(1, keepdims=True), {"axis": 1}),
    ("softsign", X / (1 + np.abs(X)), {}),
    ("thresholded_relu", np.where(X >= A, X, 0), {"alpha": A}),
])
def test_activation(kind, expected, arguments):
    check(kind, expected.astype(np.float32), **({"x": X} | arguments))


def test_softplus_of_large_numbers_does_not_overflow():
    x = np.array([-200, 200], np.float32)

    check("softplus", np.array([0, 200], np.float32), x=x)
