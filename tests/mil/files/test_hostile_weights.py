"""Broken and hostile weight files are refused by our own errors, in little memory and time."""

import shutil
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdbuild.base.errors import InvalidProgram, UnsupportedFormat
from sdbuild.mil.compress.palettize import palettize
from sdbuild.mil.files.blob import BlobReader, BlobWriter
from sdbuild.mil.files.package import model_file, read_package
from sdbuild.mil.ir.proto import messages
from tests.mil.hostile import bounded

RECORD = struct.Struct("<IIQQQ32x")


def weight_file(path, *records, size=1024):
    """A weight file of records (offset, code, size, data, padding), the rest zeros."""
    content = bytearray(size)
    struct.pack_into("<II", content, 0, len(records), 2)
    for offset, *fields in records:
        RECORD.pack_into(content, offset, 0xDEADBEEF, *fields)
    path.write_bytes(content)
    return BlobReader(path)


def test_every_truncated_weight_file_is_refused(tmp_path):
    path = tmp_path / "weight.bin"
    with BlobWriter(path) as writer:
        writer.write("fp16", bytes(200))
        writer.write("uint4", bytes(33), 4)
    content = path.read_bytes()

    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(InvalidProgram):
            list(BlobReader(path).records())


@pytest.mark.parametrize(("record", "expected"), [
    ((64, 1, 1 << 63, 128, 0), "are outside the file's 1024"),
    ((64, 1, 64, (1 << 64) - 64, 0), "are outside"),
    ((64, 1, 64, 0, 0), "are outside"),
    ((64, 1, 64, 64, 0), "are outside"),
    ((64, 1, 64, 992, 0), "are outside"),
    ((64, 8, 4, 128, 1 << 40), "padding bits, expected less than a byte"),
    ((64, 8, 0, 128, 4), "padding bits, expected less than a byte"),
    ((64, 99, 64, 128, 0), "data type code 99 is not known"),
    ((64, 0, 64, 128, 0), "data type code 0 is not known"),
])
def test_records_that_lie_are_refused(record, expected, tmp_path):
    with pytest.raises((InvalidProgram, UnsupportedFormat), match=expected):
        weight_file(tmp_path / "w.bin", record).record(64)


@pytest.mark.parametrize("offset", [0, 1, 32, 65, 960, 1024, 1 << 40, -64, (1 << 64) - 64])
def test_offsets_that_are_no_place_for_a_record_are_refused(offset, tmp_path):
    with pytest.raises(InvalidProgram, match=f"blob at offset {offset}: "):
        weight_file(tmp_path / "w.bin", (64, 1, 64, 128, 0)).record(offset)


@pytest.mark.parametrize("count", [2, 1 << 31, (1 << 32) - 1])
def test_more_blobs_than_there_are_is_refused_at_once(count, tmp_path):
    path = tmp_path / "w.bin"
    weight_file(path, (64, 1, 896, 128, 0))
    with path.open("r+b") as file:
        file.write(struct.pack("<I", count))

    with bounded(), pytest.raises(InvalidProgram):
        list(BlobReader(path).records())


@pytest.mark.parametrize("records", [
    [(64, 1, 256, 128, 0), (448, 1, 64, 512, 0), (512, 1, 64, 576, 0)],  # a record in data
    [(64, 1, 512, 256, 0), (128, 1, 512, 256, 0)],  # two of the same data
    [(64, 1, 512, 256, 0), (128, 1, 64, 704, 0)],  # of the end of other data
    [(64, 1, 768, 192, 0), (128, 1, 64, 512, 0)],  # of the middle of other data
], ids=range(4))
@pytest.mark.parametrize("is_reversed", [False, True])
def test_blobs_that_overlap_are_refused_whichever_comes_first(records, is_reversed, tmp_path):
    reader = weight_file(tmp_path / "w.bin", *records)
    offsets = [record[0] for record in records]

    with pytest.raises(InvalidProgram, match=r"the blobs at offsets \d+ and \d+ overlap"):
        for offset in reversed(offsets) if is_reversed else offsets:
            reader.data(offset)


@given(st.permutations(range(8)), st.data())
def test_blobs_in_a_row_can_be_asked_for_in_any_order_and_again(order, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.bin"
        with BlobWriter(path) as writer:
            sizes = data.draw(st.lists(st.integers(0, 200), min_size=8, max_size=8))
            offsets = [writer.write("int8", bytes(size)) for size in sizes]
        reader = BlobReader(path)

        assert [sizes[i] for i in order] == [len(reader.data(offsets[i])) for i in order]
        assert sizes == [record.size_bytes for record in reader.records()]


def test_a_small_file_of_overlapping_blobs_does_not_grow_when_edited(source, tmp_path):
    """Else each of a thousand records could claim the same gigabyte."""
    package = tmp_path / "m.mlpackage"
    shutil.copytree(source, package)
    spec = messages("Model").Model.FromString(model_file(package).read_bytes())
    path = read_package(package).root / "weights" / "weight.bin"
    content = bytearray(path.read_bytes())
    first, second = [r.offset for r in BlobReader(path).records()][::2][:2]
    RECORD.pack_into(content, first, 0xDEADBEEF, 1, len(content) - first - 64, first + 64, 0)
    path.write_bytes(content)

    assert spec.WhichOneof("Type") == "mlProgram"
    assert second > first
    with pytest.raises(InvalidProgram, match=r"overlap|bytes, expected"):
        palettize(package, tmp_path / "out.mlpackage", nbits=4, min_elements=100_000)
    assert not (tmp_path / "out.mlpackage").exists()
