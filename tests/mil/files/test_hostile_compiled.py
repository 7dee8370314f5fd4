"""Broken and hostile compiled models are refused by our own errors."""

import struct

import pytest

from sdbuild.base.errors import InvalidProgram, MILError, UnsupportedFormat
from sdbuild.mil.compile.compile import compile_package
from sdbuild.mil.files.compiled import read_compiled
from sdbuild.mil.files.coremldata import pack_description, unpack_description
from sdbuild.mil.ir.program import Blob
from tests.mil.hostile import bounded
from tests.mil.small import relu_description, small_package


@pytest.fixture
def compiled(tmp_path):
    compile_package(small_package(tmp_path / "m.mlpackage"), tmp_path / "m.mlmodelc")
    return tmp_path / "m.mlmodelc"


def test_every_truncated_description_is_refused(compiled):
    data = (compiled / "coremldata.bin").read_bytes()

    for length in range(len(data) - 16):
        with pytest.raises(InvalidProgram):
            unpack_description(data[:length], "coremldata.bin")


@pytest.mark.parametrize("at", [28, 75])
def test_huge_lengths_in_a_description_are_refused(compiled, at):
    data = bytearray((compiled / "coremldata.bin").read_bytes())
    struct.pack_into("<Q", data, at, (1 << 64) - 1)
    (compiled / "coremldata.bin").write_bytes(data)

    with bounded(), pytest.raises(InvalidProgram):
        read_compiled(compiled)


@pytest.mark.parametrize("kind", [0, 202, 500, 610])
def test_compiled_models_of_other_kinds_are_refused(compiled, kind):
    data = bytearray((compiled / "coremldata.bin").read_bytes())
    struct.pack_into("<I", data, 0, kind)
    (compiled / "coremldata.bin").write_bytes(data)

    with pytest.raises(UnsupportedFormat):
        read_compiled(compiled)


def test_a_description_that_is_no_protobuf_is_refused(compiled):
    broken = pack_description(8, relu_description(), 1).replace(b"input", b"\xff\xff\xff\xff\xff")
    (compiled / "coremldata.bin").write_bytes(broken)

    with pytest.raises(MILError):
        read_compiled(compiled)


def test_text_that_is_missing_or_not_utf8_is_refused(compiled):
    (compiled / "model.mil").write_bytes(b"program(1.0) \xff")
    with pytest.raises(InvalidProgram):
        read_compiled(compiled)

    (compiled / "model.mil").unlink()
    with pytest.raises(InvalidProgram):
        read_compiled(compiled)


def test_text_too_large_to_be_a_program_is_not_read(compiled):
    with (compiled / "model.mil").open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(InvalidProgram):
        read_compiled(compiled)


def test_blobs_of_a_compiled_model_do_not_lead_out_of_it(compiled):
    model = read_compiled(compiled)

    with pytest.raises(InvalidProgram):
        model.blob(Blob("@model_path/../m.mlpackage/Data/secret", 64))
