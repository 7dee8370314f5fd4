import numpy as np
import pytest

from sdbuild.base.errors import InvalidProgram
from sdbuild.mil.files.arrays import from_packed, pack_bits, to_array, unpack_bits
from sdbuild.mil.files.blob import BlobReader, BlobWriter
from sdbuild.mil.files.package import WEIGHT_FILE, Model
from sdbuild.mil.ir.program import Blob, ListType, Program, TensorType, Value


def bit_string(values, bits):
    """The packed bytes, spelled out bit by bit."""
    text = "".join(f"{v % (1 << bits):0{bits}b}"[::-1] for v in values)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[i:i + 8][::-1], 2) for i in range(0, len(text), 8))


@pytest.fixture
def stored(tmp_path):
    """A function that stores packed bytes in a weight file: (model, value)."""

    def store(dtype, shape, data):
        (tmp_path / "weights").mkdir()
        with BlobWriter(tmp_path / "weights" / "weight.bin") as writer:
            offset = writer.write(dtype, data)
        model = Model(specification_version=9, description=None, program=Program(functions={}),
                      root=tmp_path, source=tmp_path)
        return model, Value(TensorType(dtype, shape), Blob(WEIGHT_FILE, offset))

    return store


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100])
def test_bits_are_one_string_with_the_lowest_first(bits, count):
    values = np.random.default_rng(0).integers(0, 1 << bits, count, np.uint8)

    packed = pack_bits(values, bits)

    assert packed == bit_string(values.tolist(), bits)
    assert unpack_bits(packed, bits, count).tolist() == values.tolist()


def test_int4_is_twos_complement():
    values = np.arange(-8, 8, dtype=np.int8)

    packed = pack_bits(values, 4)

    assert packed == bit_string(values.tolist(), 4)
    assert from_packed(packed, "int4", 16).tolist() == values.tolist()


@pytest.mark.parametrize("values", [np.array([4], np.uint8), np.array([-3, 0], np.int32)])
def test_an_element_that_does_not_fit_is_refused(values):
    with pytest.raises(InvalidProgram, match="do not fit in 2 bits"):
        pack_bits(values, 2)


def test_too_few_bits_are_refused():
    with pytest.raises(InvalidProgram, match="1 bytes, expected 3 elements of 3 bits"):
        unpack_bits(b"\0", 3, 3)


@pytest.mark.parametrize(("dtype", "numpy", "values"), [
    ("bool", "?", [True, False]), ("fp16", "<f2", [0.5, -65504]), ("fp32", "<f4", [1e-30, 2]),
    ("fp64", "<f8", [1e-300, 2]), ("int8", "i1", [-128, 127]), ("uint8", "u1", [0, 255]),
    ("int16", "<i2", [-300, 300]), ("uint16", "<u2", [0, 65535]), ("int32", "<i4", [-1, 1 << 30]),
    ("uint32", "<u4", [0, 1 << 31]), ("int64", "<i8", [-1, 1 << 40]),
    ("uint64", "<u8", [0, 1 << 63]),
])
def test_immediate_values_of_whole_bytes_are_views(dtype, numpy, values):
    data = np.array(values, numpy).tobytes()

    array = to_array(None, Value(TensorType(dtype, (2, 1)), data))

    assert array.dtype == np.dtype(numpy)
    assert array.tolist() == np.array(values, numpy).reshape(2, 1).tolist()
    assert not array.flags.owndata


def test_bf16_is_the_upper_half_of_fp32():
    upper = np.array([1.0, -2.5], "<f4").view("<u2")[1::2]

    array = to_array(None, Value(TensorType("bf16", (2,)), upper.tobytes()))

    assert array.dtype == np.float32
    assert array.tolist() == [1.0, -2.5]


def test_strings_and_scalars_keep_their_shape():
    assert to_array(None, Value(TensorType("string"), ("EXACT",))).item() == "EXACT"
    assert to_array(None, Value(TensorType("int32"), b"\7\0\0\0")).shape == ()


def test_a_blob_is_mapped_and_not_copied(stored):
    values = np.arange(6, dtype="<f2")
    model, value = stored("fp16", (2, 3), values.tobytes())

    array = to_array(model, value)

    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
    mapped = np.frombuffer(model.blob(value.data), np.uint8)
    assert np.shares_memory(array, mapped)
    assert isinstance(model.reader(WEIGHT_FILE), BlobReader)


def test_a_blob_of_sub_byte_elements_is_unpacked(stored):
    model, value = stored("uint3", (5,), bit_string([1, 7, 0, 5, 2], 3))

    assert to_array(model, value).tolist() == [1, 7, 0, 5, 2]


def test_a_blob_of_another_dtype_is_refused(stored):
    model, value = stored("fp16", (2,), bytes(4))
    other = Value(TensorType("int16", (2,)), value.data)

    with pytest.raises(InvalidProgram, match="found fp16"):
        to_array(model, other)


@pytest.mark.parametrize(("value", "message"), [
    (Value(TensorType("fp32", (2,)), bytes(4)), "4 bytes, expected 8"),
    (Value(TensorType("fp32", (None,)), bytes(4)), "expected a tensor of known shape"),
    (Value(ListType(TensorType("fp32"), 0), ()), "expected a tensor"),
    (Value(TensorType("fp32", (1,)), Blob(WEIGHT_FILE, 64)), "no model to read it from"),
])
def test_values_that_are_no_sound_tensors_are_refused(value, message):
    with pytest.raises(InvalidProgram, match=message):
        to_array(None, value)
