import numpy as np
import pytest

from sdbuild.base.errors import InvalidProgram
from tests.mil.operations import check, const, floats, run

X, W, B = floats(2, 5, 3), floats(4, 3, seed=1), floats(4, seed=2)


def test_linear():
    check("linear", X @ W.T + B, x=X, weight=const(W), bias=const(B))
    check("linear", X @ W.T, x=X, weight=const(W))


@pytest.mark.parametrize("transpose_x", [False, True])
@pytest.mark.parametrize("transpose_y", [False, True])
def test_matmul(transpose_x, transpose_y):
    x, y = floats(2, 3, 4), floats(4, 5, seed=1)
    given_x = x.swapaxes(-1, -2) if transpose_x else x
    given_y = y.swapaxes(-1, -2) if transpose_y else y

    check("matmul", x @ y, x=given_x.copy(), y=given_y.copy(), transpose_x=transpose_x,
          transpose_y=transpose_y)


@pytest.mark.parametrize("equation", ["bchq,bkhc->bkhq", "bkhq,bchk->bchq"])
def test_einsum_of_attention(equation):
    first, second = floats(1, 4, 2, 3), floats(1, 5, 2, 4, seed=1)
    if equation == "bkhq,bchk->bchq":
        first, second = floats(1, 4, 2, 3), floats(1, 6, 2, 4, seed=1)
    expected = np.einsum(equation, first, second)

    check("einsum", expected, values=[first, second], equation=equation)


def test_a_product_with_a_constant_takes_the_type_of_the_other_factor():
    x, weight = floats(2, 3), np.arange(12, dtype=np.int32).reshape(4, 3)
    expected = (x @ weight.T).astype(np.float32)

    check("linear", expected, x=x, weight=const(weight))
    check("matmul", expected, x=x, y=const(weight), transpose_y=True)
    check("matmul", expected.T, x=const(weight), y=x, transpose_y=True)
    check("matmul", np.array([[4, 10]], np.int32), x=const(np.array([[2]], np.float16)),
          y=np.array([[2, 5]], np.int32))


def test_factors_of_different_types_are_refused_if_both_vary():
    with pytest.raises(InvalidProgram, match="matmul out0: argument y: found int32, expected fp32"):
        run("matmul", [floats(2, 2)], x=floats(2, 3), y=np.ones((3, 2), np.int32))
