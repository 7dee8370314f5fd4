"""Programs that `verify` calls malformed are refused by every edit and the compiler."""

import pytest

from sdbuild.base.errors import InvalidProgram
from sdbuild.mil.compile.compile import compile_package
from sdbuild.mil.compress.palettize import palettize
from sdbuild.mil.compress.quantize import quantize
from sdbuild.mil.compress.sparsify import sparsify
from sdbuild.mil.edit.chunk import chunk
from sdbuild.mil.edit.pipeline import join
from sdbuild.mil.files.package import read_package
from sdbuild.mil.ir.proto import messages
from tests.mil.packages import edited, main_block, operation

WRITERS = {
    "palettize": lambda source, out: palettize(source, out, nbits=4),
    "quantize": quantize,
    "sparsify": lambda source, out: sparsify(source, out, sparsity=0.5),
    "chunk": lambda source, out: chunk(source, [out, out.with_suffix(".2")]),
    "compile": compile_package,
    "join": lambda source, out: join([source, source], out),
}


def with_a_name_that_nothing_defines(spec):
    operation(spec, "conv").inputs["x"].arguments[0].MergeFromString(
        messages("MIL").Argument.Binding(name="nowhere").SerializeToString())


def with_a_constant_without_value(spec):
    del operation(spec, "const").attributes["val"]


def with_a_blob_of_another_type(spec):
    operation(spec, "const").attributes["val"].type.tensorType.dataType = 11


def with_an_output_that_the_program_lacks(spec):
    spec.description.output[0].name = "nowhere"


def weight_file(package):
    return read_package(package).root / "weights" / "weight.bin"


def truncated(package):
    file = weight_file(package)
    file.write_bytes(file.read_bytes()[:2000])


def with_a_broken_record(package):
    file = weight_file(package)
    data = bytearray(file.read_bytes())
    data[64] ^= 1  # in the sentinel of the first record
    file.write_bytes(data)


BROKEN = {
    "a name": (with_a_name_that_nothing_defines, None, "uses 'nowhere' which nothing defines"),
    "a value": (with_a_constant_without_value, None, "a constant has no value"),
    "a type": (with_a_blob_of_another_type, None, "its blob holds fp16, expected fp32"),
    "a feature": (with_an_output_that_the_program_lacks, None, "the program has no 'nowhere'"),
    "a file": (None, truncated, "are outside the file's 2000"),
    "a record": (None, with_a_broken_record, "expected 0xdeadbeef"),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_package_is_refused_before_anything_is_written(source, tmp_path, broken, write):
    change, damage, expected = broken
    package = edited(source, tmp_path / "broken.mlpackage", change or main_block)
    if damage:
        damage(package)

    with pytest.raises(InvalidProgram, match=expected):
        write(package, tmp_path / "out")

    assert [p.name for p in tmp_path.iterdir()] == ["broken.mlpackage"]
