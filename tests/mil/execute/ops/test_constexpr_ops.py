import numpy as np
import pytest

from sdbuild.mil.execute.execute import Executor
from sdbuild.mil.files.arrays import pack_bits
from sdbuild.mil.ir.program import TensorType
from tests.mil.operations import F16, check, const, floats, model_of, operation


def as_uint32(*numbers):
    """A shape, as the iOS 16 operations have it."""
    return const(np.array(numbers, np.int32))


@pytest.mark.parametrize("nbits", [1, 2, 4, 6, 8])
def test_flat_lookup_table_of_ios16(nbits):
    lut = floats(2**nbits, dtype=F16)
    indices = np.random.default_rng(0).integers(0, 2**nbits, (3, 7), np.uint8)

    check("constexpr_lut_to_dense", lut[indices], as_attributes=True, lut=const(lut),
          indices=const(np.frombuffer(pack_bits(indices, nbits), np.uint8)), shape=[3, 7])


@pytest.mark.parametrize("nbits", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("groups", [(1, 1), (2, 1), (1, 4), (3, 2)])
def test_grouped_lookup_tables_of_ios18(nbits, groups):
    lut = floats(*groups, 2**nbits, 1, dtype=F16)
    indices = np.random.default_rng(0).integers(0, 2**nbits, (6, 4), np.uint8)
    expected = np.empty((6, 4), F16)
    for row, column in np.ndindex(6, 4):
        table = lut[row * groups[0] // 6, column * groups[1] // 4]
        expected[row, column] = table[indices[row, column], 0]

    check("constexpr_lut_to_dense", expected, indices=const(indices, f"uint{nbits}"),
          lut=const(lut))


def test_lookup_of_vectors_fills_the_axis():
    """The second case of coremltools' documentation."""
    a, b = [1, 2, 3], [4, 5, 6]
    lut = np.array([a, b], np.int8).reshape(1, 1, 1, 2, 3)
    indices = np.array([[[0, 0], [1, 0]], [[1, 1], [0, 0]]], np.uint8)
    along_rows = [np.transpose([a + b, a + a]), np.transpose([b + a, b + a])]

    check("constexpr_lut_to_dense", np.array(along_rows, np.int8), lut=const(lut),
          indices=const(indices, "uint1"), vector_axis=1)
    check("constexpr_lut_to_dense", np.array([[a + a, b + a], [b + b, a + a]], np.int8),
          lut=const(lut), indices=const(indices, "uint1"), vector_axis=-1)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_affine_dequantize(axis):
    data = np.random.default_rng(0).integers(-128, 127, (3, 4), np.int8)
    count = data.shape[axis]
    scale, zero = np.abs(floats(count, dtype=F16)), np.arange(count, dtype=np.int8)
    shape = (-1, 1) if axis == 0 else (1, -1)
    expected = (data.astype(np.float32) - zero.reshape(shape)) * scale.reshape(shape)

    check("constexpr_affine_dequantize", expected.astype(F16), as_attributes=True, axis=axis,
          quantized_data=const(data), scale=const(scale), zero_point=const(zero), rtol=1e-3)


def test_sparse_to_dense():
    mask = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)
    expected = np.array([[0, 5, 6], [0, 0, 7]], F16)
    data = const(np.array([5, 6, 7], F16))

    check("constexpr_sparse_to_dense", expected, as_attributes=True, nonzero_data=data,
          mask=const(np.array([0b100110], np.uint8)), shape=as_uint32(2, 3))
    check("constexpr_sparse_to_dense", expected, nonzero_data=data, mask=const(mask, "uint1"))


@pytest.mark.parametrize("offset", [None, np.array([[1], [-2]], np.int8)])
def test_blockwise_shift_scale(offset):
    data = np.arange(-8, 8, dtype=np.int8).reshape(4, 4)
    scale = np.array([[0.5], [2]], F16)
    shift = 0 if offset is None else offset.repeat(2, 0)
    expected = ((data - shift) * scale.repeat(2, 0)).astype(F16)

    check("constexpr_blockwise_shift_scale", expected, data=const(data, "int4"),
          scale=const(scale), offset=None if offset is None else const(offset, "int4"))


def sparse(kind, data, mask, **arguments):
    """A sparse operation and what makes its two outputs dense; only those leave the program."""
    wide_shape = arguments.pop("shape")
    kept = TensorType("fp16", (arguments.pop("count"),))
    operations = [
        operation(kind, {"mask": TensorType("uint1", wide_shape), "kept": kept},
                  **arguments, **{mask[0]: const(mask[1], "uint1"), data[0]: data[1]}),
        operation("constexpr_sparse_to_dense", {"dense": TensorType("fp16", wide_shape)},
                  nonzero_data="kept", mask="mask"),
    ]
    return Executor(model_of(operations, [], ["dense"])).predict({})["dense"]


@pytest.mark.parametrize(("lut", "vector_axis", "repeats"), [
    ([2.0, 3.0], None, 1), ([[2.0, 2.5], [3.0, 3.5]], 0, 2),
])
def test_lookup_of_sparse_indices(lut, vector_axis, repeats):
    """The examples of coremltools' documentation."""
    mask = np.array([[1, 1, 0], [0, 0, 1]], np.uint8)
    indices = np.array([0, 1, 1], np.uint8)
    table = np.array(lut, F16).reshape(1, 1, 2, repeats)
    dense = np.zeros((2, 3, repeats), F16)
    dense[mask == 1] = table[0, 0, indices]
    expected = dense.transpose(0, 2, 1).reshape(2 * repeats, 3)

    found = sparse("constexpr_lut_to_sparse", ("indices_nonzero_data", const(indices, "uint1")),
                   ("indices_mask", mask), lut=const(table), shape=(2 * repeats, 3),
                   vector_axis=None if vector_axis is None else const(vector_axis),
                   count=3 * repeats)

    assert found.tolist() == expected.tolist()


def test_shift_and_scale_of_sparse_data():
    mask = np.array([[1, 1, 0], [0, 1, 1]], np.uint8)
    data, scale = np.array([10, 11, 3, 4], np.int8), np.array([[0.5, 1, 2]], F16)
    offset = np.array([[1, 2, 3]], np.int8)

    found = sparse("constexpr_sparse_blockwise_shift_scale", ("nonzero_data", const(data)),
                   ("data_mask", mask), scale=const(scale), offset=const(offset), count=4,
                   shape=(2, 3))

    assert found.tolist() == [[4.5, 9, 0], [0, 1, 2]]


def test_cast():
    check("constexpr_cast", np.array([0.5], np.float32), as_attributes=True,
          source_val=const(np.array([0.5], F16)), output_dtype="fp32")
