import numpy as np
import pytest

from tests.mil.operations import check, const, floats

X = floats(2, 3) * 100


@pytest.mark.parametrize(("dtype", "low", "high"), [("int8", -128, 127), ("uint8", 0, 255)])
def test_quantize_keeps_to_the_range(dtype, low, high):
    zero = const(np.array(3, dtype))
    expected = np.clip(np.round(X / 0.5) + 3, low, high).astype(dtype)

    check("quantize", expected, input=X, scale=const(np.float32(0.5)), zero_point=zero,
          output_dtype=dtype)


def test_dequantize_along_an_axis():
    data = np.array([[-128, 0, 127], [1, 2, 3]], np.int8)
    scale, zero = np.array([0.5, 2], np.float32), np.array([1, -1], np.int8)

    check("dequantize", (data - zero[:, None].astype(np.float32)) * scale[:, None], input=data,
          scale=const(scale), zero_point=const(zero), axis=0)
