"""Operations by what their results have to do with their arguments."""

from __future__ import annotations

ELEMENTWISE = frozenset({
    "abs", "add", "clip", "cos", "elu", "erf", "exp", "exp2", "gelu", "inverse", "leaky_relu",
    "linear_activation", "log", "maximum", "minimum", "mul", "pow", "real_div", "relu", "relu6",
    "rsqrt", "scaled_tanh", "sigmoid", "sigmoid_hard", "silu", "sin", "softplus", "softsign",
    "sqrt", "square", "sub", "tanh",
})
"""Operations of which each element comes from one place of each argument, broadcast as in numpy."""

ALONG_LAST = frozenset({"softmax"})
"""Operations along one axis, sliced if it is the last."""

MATMUL = "matmul"
FRESH = ELEMENTWISE | ALONG_LAST | {
    MATMUL, "batch_norm", "conv", "instance_norm", "layer_norm", "linear",
}
"""Operations whose results are never views of their arguments."""
