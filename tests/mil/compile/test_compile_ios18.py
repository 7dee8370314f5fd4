"""Compiled models of iOS 18: packed weights and states.

What is expected comes from `metadata.json` of public compiled models, listed in
`tests/fixtures/mlmodelc/PROVENANCE.md`, unless a test says that it is derived.
"""

import json

import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.optimize import coreml as cto

from sdbuild.base.errors import InvalidProgram, UnsupportedFormat
from sdbuild.mil.compile.compile import compile_package
from sdbuild.mil.compile.metadata import describe
from sdbuild.mil.compress.palettize import palettize
from sdbuild.mil.compress.quantize import quantize
from sdbuild.mil.files.compiled import read_compiled
from sdbuild.mil.files.package import read_package, write_package
from sdbuild.mil.ir.proto import messages
from sdbuild.mil.text.parse import parse_program
from tests.mil.packages import IOS18, changed, convolutions, package

FLOAT16 = 65552
BLOB = 'BLOBFILE(path = string("@model_path/weights/weight.bin"), offset = uint64(64))'
BIAS = f"tensor<fp16, [4]> b = const()[val = tensor<fp16, [4]>({BLOB})];"


def weight_package(path, operation):
    """A package with a bias in the weight file and a weight that `operation` unpacks."""
    description = messages("Model").ModelDescription()
    for features, name in ((description.input, "x"), (description.output, "y")):
        array = features.add(name=name).type.multiArrayType
        array.shape[:], array.dataType = [1, 4], FLOAT16
    text = (
        f"program(1.3) {{ func main<ios18>(tensor<fp16, [1, 4]> x) {{ {BIAS}"
        f"tensor<fp16, [4, 4]> w = {operation};"
        "tensor<fp16, [1, 4]> y = linear(bias = b, weight = w, x = x); } -> (y); }"
    )
    write_package(path, specification_version=9, description=description,
                  program=parse_program(text), weights=None)
    return path


def palette_of(bits, tables=1):
    zeros = ", ".join(["0x0p+0"] * 2**bits)
    lut = ", ".join([f"[[{', '.join(f'[{zero}]' for zero in zeros.split(', '))}]]"] * tables)
    return (
        f"constexpr_lut_to_dense(indices = tensor<uint{bits}, [4, 4]>({BLOB}), "
        f"lut = tensor<fp16, [{tables}, 1, {2**bits}, 1]>([{lut}]))"
    )


def scaled(dtype):
    scales = "tensor<fp16, [4, 1]>([[0x1p+0], [0x1p+0], [0x1p+0], [0x1p+0]])"
    return (f"constexpr_blockwise_shift_scale(data = tensor<{dtype}, [4, 4]>({BLOB}), "
            f"scale = {scales})")


@pytest.mark.parametrize(("operation", "expected"), [
    (palette_of(8), "Mixed (Float16, Palettized (8 bits), UInt8)"),
    (scaled("int8"), "Mixed (Float16, Int8)"),
    (scaled("int4"), "Mixed (Float16, Int4)"),
], ids=["palette", "int8", "int4"])
def test_packed_weights_are_described_as_by_apples_compiler(operation, expected, tmp_path):
    model = read_package(weight_package(tmp_path / "m.mlpackage", operation))

    assert expected == describe(model, "m")[0]["storagePrecision"]


@pytest.mark.parametrize(("bits", "tables"), [(4, 1), (6, 1), (4, 2)])
def test_other_palettes_are_described_likewise(bits, tables, tmp_path):
    model = read_package(weight_package(tmp_path / "m.mlpackage", palette_of(bits, tables)))

    storage = describe(model, "m")[0]["storagePrecision"]

    assert f"Mixed (Float16, Palettized ({bits} bits), UInt{bits})" == storage  # derived


def test_a_palette_without_indices_is_refused(tmp_path):
    operation = "constexpr_lut_to_dense(lut = tensor<fp16, [1, 1, 2, 1]>([[[[0x0p+0], [0x0p+0]]]]))"
    model = read_package(weight_package(tmp_path / "m.mlpackage", operation))

    with pytest.raises(InvalidProgram, match="no tensor called 'indices'"):
        describe(model, "m")


@pytest.mark.parametrize("pack", [
    lambda source, path: palettize(source, path, nbits=6),
    lambda source, path: palettize(source, path, nbits=3, group_size=4),
    lambda source, path: quantize(source, path, nbits=4, block_size=12),
    lambda source, path: changed(source, path, lambda model: cto.palettize_weights(
        model, cto.OptimizationConfig(cto.OpPalettizerConfig(mode="uniform", nbits=4)))),
], ids=["6 bits", "groups of 3 bits", "int4", "coremltools"])
def test_packages_with_packed_weights_compile_and_read_back_alike(pack, tmp_path):
    source = convolutions(tmp_path / "whole.mlpackage", IOS18, layers=2)
    pack(source, tmp_path / "packed.mlpackage")

    compile_package(tmp_path / "packed.mlpackage", tmp_path / "m.mlmodelc", name="m")

    packed, compiled = read_package(tmp_path / "packed.mlpackage"), tmp_path / "m.mlmodelc"
    assert packed.program.functions == read_compiled(compiled).program.functions
    assert "constexpr_" in (compiled / "model.mil").read_text("utf-8")


def test_packed_indices_are_written_with_their_own_type(tmp_path):
    source = convolutions(tmp_path / "whole.mlpackage", IOS18, layers=1)
    palettize(source, tmp_path / "packed.mlpackage", nbits=6)

    compile_package(tmp_path / "packed.mlpackage", tmp_path / "m.mlmodelc", name="m")

    text = (tmp_path / "m.mlmodelc" / "model.mil").read_text("utf-8")
    assert "constexpr_lut_to_dense(indices = tensor<uint6, [36, 36, 3, 3]>(BLOBFILE(path = " in text
    assert "lut = tensor<fp16, [1, 1, 1, 1, 64, 1]>(BLOBFILE(path = " in text


def stateful(path):
    """A package that adds its input to a state."""

    def body(x, k_cache):
        total = mb.add(x=mb.read_state(input=k_cache), y=x)
        return mb.coreml_update_state(state=k_cache, value=total, name="y")

    kind = (1, 8), types.fp16
    return package(path, body, kind, target=IOS18, states=[kind])


def test_states_are_described_as_by_apples_compiler(tmp_path):
    source = stateful(tmp_path / "m.mlpackage")

    compile_package(source, tmp_path / "m.mlmodelc", name="m")

    metadata = json.loads((tmp_path / "m.mlmodelc" / "metadata.json").read_text("utf-8"))[0]
    assert [{
        "dataType": "Float16", "isOptional": "0", "formattedType": "State (Float16 1 × 8)",
        "shortDescription": "", "shape": "[1, 8]", "name": "k_cache", "type": "State",
    }] == metadata["stateSchema"]
    histogram = metadata["mlProgramOperationTypeHistogram"]
    assert 1 == histogram["Ios18.writeState"]
    assert {"Ios18.readState", "Ios18.writeState", "Ios18.add"} <= histogram.keys()


def test_states_are_read_and_written_in_the_text(tmp_path):
    source = stateful(tmp_path / "m.mlpackage")

    compile_package(source, tmp_path / "m.mlmodelc", name="m")

    text = (tmp_path / "m.mlmodelc" / "model.mil").read_text("utf-8")
    assert "func main<ios18>(state<tensor<fp16, [1, 8]>> k_cache, tensor<fp16, [1, 8]> x)" in text
    assert "= read_state(input = k_cache)[name = string(" in text
    assert "            write_state(data = " in text
    model, compiled = read_package(source), read_compiled(tmp_path / "m.mlmodelc")
    assert model.program.main.block == compiled.program.main.block
    assert model.description.state == compiled.description.state


def test_states_of_other_kinds_are_refused(tmp_path):
    model = read_package(stateful(tmp_path / "m.mlpackage"))
    model.description.state[0].type.stateType.arrayType.dataType = 65600  # double

    with pytest.raises(UnsupportedFormat, match="state k_cache: only how a state of floats"):
        describe(model, "m")


def test_the_palette_of_a_whole_program_is_described(tmp_path):
    source = convolutions(tmp_path / "whole.mlpackage", IOS18, layers=2)
    palettize(source, tmp_path / "packed.mlpackage", nbits=4)

    entry = describe(read_package(tmp_path / "packed.mlpackage"), "m")[0]

    assert "Mixed (Float16, Palettized (4 bits), UInt4)" == entry["storagePrecision"]
    assert 2 == entry["mlProgramOperationTypeHistogram"]["Ios18.constexprLutToDense"]
