import base64
import hashlib
import json
import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from sdbuild.base.errors import InvalidProgram, MILError
from sdbuild.mil.compile.compile import CompilerVersions, compile_package
from sdbuild.mil.compile.histogram import TABLE, histogram_name
from sdbuild.mil.compile.metadata import describe
from sdbuild.mil.files.compiled import read_compiled
from sdbuild.mil.files.coremldata import unpack_description
from sdbuild.mil.files.package import model_file, read_package, write_package
from sdbuild.mil.files.read import read_model
from sdbuild.mil.inspect.summary import placed
from sdbuild.mil.ir.dtype import DTYPES, packed_bytes
from sdbuild.mil.ir.program import Blob
from sdbuild.mil.ir.proto import messages
from sdbuild.mil.ir.traverse import walk
from sdbuild.mil.text.parse import parse_program
from tests.mil.small import array_feature, relu_description, small_package

FIXTURES = Path(__file__).parents[2] / "fixtures" / "mlmodelc"
PAIRS = sorted(path.parent for path in FIXTURES.glob("*/source.mlpackage"))
LONE = FIXTURES / "lone"
PAIR = FIXTURES / "silero_palette_4bit"
STABLE_DIFFUSION = (
    "conv linear matmul einsum softmax layer_norm batch_norm instance_norm reduce_mean "
    "reduce_sum_square square sqrt rsqrt real_div mul add sub reshape transpose concat split "
    "slice_by_index upsample_nearest_neighbor gelu silu sigmoid gather gather_nd "
    "gather_along_axis cast sin cos exp tanh clip expand_dims squeeze stack tile select equal "
    "less greater"
)
OPSETS = {"ios15": "CoreML5", "ios16": "CoreML6", "ios17": "CoreML7", "ios18": "CoreML8"}


def expected_metadata(folder):
    return json.loads((folder / "metadata.json").read_text("utf-8"))


def with_weights(package, tmp_path):
    """The package, or a copy with blobs of zeros where the fixture lacks its weight file."""
    if not list(package.glob("Data/*/weights/*.lfs-pointer.txt")):
        return package
    copy = tmp_path / "with_weights.mlpackage"
    shutil.copytree(package, copy)
    model = read_package(copy)
    block = model.program.main.block
    values = {value.data: value.type for op in walk(block) for _, value in placed(op)}
    with (model.root / "weights" / "weight.bin").open("wb") as file:
        file.write(struct.pack("<II56x", 0, 2))
        for blob, kind in values.items():
            size, start = packed_bytes(kind.dtype, kind.count), blob.offset + 64
            file.seek(blob.offset)
            file.write(struct.pack(
                "<IIQQQ32x", 0xDEADBEEF, DTYPES[kind.dtype].blob, size, start, 0))
            file.truncate(max(os.fstat(file.fileno()).st_size, start + size))
    return copy


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*")) if path.is_file()
    }


# against Apple's compiler


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_a_package_compiles_to_what_apples_compiler_made_of_it(pair, tmp_path):
    expected = pair / "expected.mlmodelc"
    metadata = expected_metadata(expected)
    source, compiled = with_weights(pair / "source.mlpackage", tmp_path), tmp_path / "m.mlmodelc"

    compile_package(source, compiled, name=metadata[0]["generatedClassName"], is_linked=True)

    for name in ("model.mil", "analytics/coremldata.bin"):
        if (expected / name).exists():  # else it is a pointer to a file that is not here
            assert (expected / name).read_bytes() == (compiled / name).read_bytes()
    if (expected / "coremldata.bin").exists():
        data = (expected / "coremldata.bin").read_bytes()
        made = (compiled / "coremldata.bin").read_bytes()
        assert len(data) == len(made)
        assert unpack_description(data, "") == unpack_description(made, "")
        assert data[:75] == made[:75]
        assert data[-16:] == made[-16:]
    assert metadata == expected_metadata(compiled)
    weights = model_file(source).parent / "weights" / "weight.bin"
    assert weights.samefile(compiled / "weights" / "weight.bin")


def restored(folder, path):
    """A package of a compiled model, without what its compiler added; and that compiler."""
    model = read_compiled(folder)
    build = {key.data[0]: value for key, value in model.program.attributes["buildInfo"].data}
    versions = CompilerVersions(
        coremlc=build["coremlc-version"].data[0], mil=build["coremlc-component-MIL"].data[0]
    )
    functions = {
        name: replace(function, attributes={}) for name, function in model.program.functions.items()
    }
    write_package(
        path, specification_version=model.specification_version, description=model.description,
        program=replace(model.program, functions=functions), weights=None,
    )
    return path, versions


@pytest.mark.parametrize(
    "name", ["fa_Argmax_b1661f", "fa_TokenDurationPrediction_b1661f", "fa_TransposeEncoder_f88b12"]
)
def test_a_compiled_model_turned_into_a_package_compiles_to_itself(name, tmp_path):
    compiled = LONE / f"{name}.mlmodelc"
    metadata = expected_metadata(compiled)
    package, versions = restored(compiled, tmp_path / "m.mlpackage")

    compile_package(package, tmp_path / "m.mlmodelc", versions=versions,
                    name=metadata[0]["generatedClassName"])

    made = tmp_path / "m.mlmodelc"
    assert (compiled / "model.mil").read_bytes() == (made / "model.mil").read_bytes()
    assert metadata == expected_metadata(made)
    assert read_compiled(compiled).description == read_compiled(made).description


def test_an_ios18_model_is_described_as_by_apples_compiler_but_for_its_schemas():
    compiled = LONE / "wax_ac1dfa.mlmodelc"
    model = read_compiled(compiled)
    for feature in model.description.input:
        feature.type.multiArrayType.ClearField("enumeratedShapes")

    expected = expected_metadata(compiled)[0]

    made = describe(model, expected["generatedClassName"])[0]

    assert expected.keys() == made.keys()
    differing = {key for key in expected if expected[key] != made[key]}
    assert differing == {"inputSchema"}


def test_flexible_shapes_of_several_functions_are_reported_as_apples_compiler_does(tmp_path):
    text = (FIXTURES / "text" / "flexible-multifunction.mil").read_text("utf-8")
    program = parse_program(text)
    description = messages("Model").ModelDescription(defaultFunctionName="first")
    for name, size in (("first", 4), ("second", 2)):
        function = description.functions.add(name=name)
        function.input.append(array_feature("input", (size,), ranges=[(0, 4)]))
        function.output.append(array_feature("output", ()))
    plain = {name: replace(f, attributes={}) for name, f in program.functions.items()}
    write_package(tmp_path / "m.mlpackage", specification_version=9, description=description,
                  program=replace(program, functions=plain, attributes={}), weights=None)

    compile_package(tmp_path / "m.mlpackage", tmp_path / "m.mlmodelc",
                    versions=CompilerVersions(coremlc="3600.25.1", mil="3600.16.1"))

    assert text == (tmp_path / "m.mlmodelc" / "model.mil").read_text("utf-8")
    assert (tmp_path / "m.mlmodelc" / "coremldata.bin").read_bytes().endswith(
        struct.pack("<I12xI12x", 502, 502)
    )
    metadata = expected_metadata(tmp_path / "m.mlmodelc")[0]
    assert [f["name"] for f in metadata["functions"]] == ["first", "second"]
    assert metadata["functions"][1]["inputSchema"][0]["shape"] == "[2]"
    assert metadata["inputSchema"][0]["shapeFlexibility"] == "0...4"
    assert metadata["defaultFunctionName"] == "first"


def test_every_name_seen_in_a_histogram_is_given():
    seen = json.loads((FIXTURES / "op_histogram_names.json").read_text("utf-8"))

    for opset, names in seen.items():
        made = {operation: histogram_name(operation, OPSETS[opset]) for operation in names}
        assert names == made


def test_a_redefinition_never_gets_lost_in_a_newer_opset():
    newest = {}
    for opset in ("CoreML6", "CoreML7", "CoreML8"):
        rows = [row for row in TABLE if row.opset == opset]
        for operation in {name for row in rows for name in row.operations.split()}:
            name = histogram_name(operation, opset)
            prefix = name.partition(".")[0] if "." in name else ""
            assert newest.get(operation, "") <= prefix, operation
            newest[operation] = prefix


@pytest.mark.parametrize("opset", OPSETS.values())
@pytest.mark.parametrize("operation", STABLE_DIFFUSION.split())
def test_operations_of_stable_diffusion_have_names(operation, opset):
    assert histogram_name(operation, opset)


def test_apps_find_the_split_einsum_attention():
    for opset in ("CoreML6", "CoreML7", "CoreML8"):
        assert histogram_name("einsum", opset) == "Ios16.einsum"


# properties of compiling


def test_compiling_twice_gives_the_same_bytes_wherever_the_package_lies(tmp_path):
    elsewhere = tmp_path / "elsewhere" / "3.mlpackage"
    shutil.copytree(PAIR / "source.mlpackage", elsewhere)

    compile_package(PAIR / "source.mlpackage", tmp_path / "a.mlmodelc", name="Unet")
    compile_package(elsewhere, tmp_path / "b.mlmodelc", name="Unet")

    assert content(tmp_path / "a.mlmodelc") == content(tmp_path / "b.mlmodelc")


def test_weights_are_copied_where_links_cannot_be(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", no_links)

    compile_package(PAIR / "source.mlpackage", tmp_path / "m.mlmodelc", is_linked=True)

    source = model_file(PAIR / "source.mlpackage").parent / "weights" / "weight.bin"
    copy = tmp_path / "m.mlmodelc" / "weights" / "weight.bin"
    assert not source.samefile(copy)
    assert source.read_bytes() == copy.read_bytes()


def test_an_existing_folder_is_left_alone(tmp_path):
    with pytest.raises(MILError, match="exists already"):
        compile_package(PAIR / "source.mlpackage", tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_compiled_model_reads_as_its_package_does(tmp_path):
    package = read_package(PAIR / "source.mlpackage")

    compile_package(PAIR / "source.mlpackage", tmp_path / "m.mlmodelc")

    compiled = read_model(tmp_path / "m.mlmodelc")
    function = package.program.main
    ordered = tuple(sorted(function.inputs, key=lambda item: item.name))
    assert package.specification_version == compiled.specification_version
    assert package.description == compiled.description
    assert replace(function, inputs=ordered) == compiled.program.main
    blob = next(
        value.data for operation in function.block.operations
        for value in operation.constants() if isinstance(value.data, Blob)
    )
    assert package.blob(blob) == compiled.blob(blob)


def test_read_model_takes_packages_and_refuses_other_folders(tmp_path):
    assert read_model(PAIR / "source.mlpackage").specification_version == 7
    with pytest.raises(InvalidProgram):
        read_model(tmp_path)


def test_a_program_without_blobs_has_no_weights_and_no_storage_precision(tmp_path):
    compile_package(small_package(tmp_path / "a-b v6.mlpackage"), tmp_path / "m.mlmodelc")

    assert [path.name for path in sorted((tmp_path / "m.mlmodelc").iterdir())] == [
        "analytics", "coremldata.bin", "metadata.json", "model.mil",
    ]
    metadata = expected_metadata(tmp_path / "m.mlmodelc")[0]
    assert "storagePrecision" not in metadata
    assert metadata["generatedClassName"] == "a_b_v6"
    assert metadata["mlProgramOperationTypeHistogram"] == {"Ios16.relu": 1}


def test_a_description_without_metadata_gets_an_empty_one(tmp_path):
    compile_package(small_package(tmp_path / "m.mlpackage"), tmp_path / "m.mlmodelc")

    data = (tmp_path / "m.mlmodelc" / "coremldata.bin").read_bytes()
    assert data.endswith(b"\xa2\x06\0" + struct.pack("<I12x", 502))


def test_images_and_numbers_are_described(tmp_path):
    description = relu_description()
    feature = description.input.add(name="picture", shortDescription="half / whole")
    image = feature.type.imageType
    image.width, image.height, image.colorSpace = 640, 480, 20
    description.output.add(name="iou").type.doubleType.SetInParent()
    text = ("program(1.0) { func main<ios17>(tensor<fp32, [4]> input,"
            " tensor<fp32, [1, 3, 480, 640]> picture) {"
            " tensor<fp32, [4]> output = relu(x = input);"
            " tensor<fp32, [1, 3, 480, 640]> iou = relu(x = picture); } -> (output, iou); }")

    compile_package(small_package(tmp_path / "m.mlpackage", text, description=description),
                    tmp_path / "m.mlmodelc")

    metadata = expected_metadata(tmp_path / "m.mlmodelc")[0]
    assert metadata["inputSchema"][1] == {
        "name": "picture", "type": "Image", "formattedType": "Image (Color 640 × 480)",
        "width": "640", "height": "480", "colorspace": "RGB", "isColor": "1",
        "hasSizeFlexibility": "0", "isOptional": "0", "shortDescription": "half / whole",
    }
    assert metadata["outputSchema"][1]["formattedType"] == "Double"
    text = (tmp_path / "m.mlmodelc" / "metadata.json").read_text("utf-8")
    assert r'"shortDescription" : "half \/ whole"' in text
    assert '"stateSchema" : [\n\n    ]' in text


def test_the_hash_in_analytics_is_that_of_the_source_file(tmp_path):
    package = small_package(tmp_path / "m.mlpackage")

    compile_package(package, tmp_path / "m.mlmodelc")

    digest = hashlib.sha256(model_file(package).read_bytes()).digest()
    analytics = (tmp_path / "m.mlmodelc" / "analytics" / "coremldata.bin").read_bytes()
    assert base64.b64encode(digest) in analytics
