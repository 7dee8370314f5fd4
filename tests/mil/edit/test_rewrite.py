from dataclasses import replace

import pytest

from sdbuild.base.errors import InvalidProgram, MILError, UnsupportedFormat
from sdbuild.mil.compress.palettize import palettize
from sdbuild.mil.edit.rewrite import write_edited
from sdbuild.mil.files.package import read_package
from sdbuild.mil.ir.program import (
    Blob,
    Block,
    Function,
    ListType,
    NamedType,
    Operation,
    Program,
    TensorType,
    TupleType,
    Value,
    string,
)
from sdbuild.mil.ir.traverse import (
    blobs,
    fresh,
    moved,
    rebuilt,
    used_constants,
    walk,
    weight_files,
)
from tests.mil.packages import convolutions

FLOAT = TensorType("fp32", (2,))
HALF = TensorType("fp16", (36, 36, 3, 3))


def const(name):
    return Operation(type="const", outputs=(NamedType(name, FLOAT),),
                     attributes={"name": string(name), "val": string(name)})


def relu(source, target, blocks=()):
    return Operation(type="relu", inputs={"x": (source,)}, outputs=(NamedType(target, FLOAT),),
                     blocks=blocks)


def copied(model, weights):
    main = model.program.main
    block = rebuilt(main.block, weights.carry)
    return replace(model.program, functions={"main": replace(main, blocks={main.opset: block})})


def test_constants_that_nothing_uses_are_dropped_and_others_stay_in_order():
    inner = Block(operations=(relu("inside", "y"),), outputs=("y",))
    block = Block(outputs=("out", "kept"), operations=(
        const("used"), const("unused"), const("inside"), relu("used", "a"), const("kept"),
        relu("a", "out", blocks=(inner,)), const("late"),
    ))

    names = [op.outputs[0].name for op in used_constants(block).operations]

    assert names == ["used", "inside", "a", "kept", "out"]


def test_a_packed_weight_that_nothing_uses_takes_its_constants_along():
    packed = Operation(type="constexpr_lut_to_dense", inputs={"lut": ("table",)},
                       outputs=(NamedType("weight", FLOAT),))
    block = Block(operations=(const("table"), packed, relu("x", "out")), outputs=("out",))

    assert [op.type for op in used_constants(block).operations] == ["relu"]


def test_weight_files_are_found_in_nested_blocks_lists_and_attributes():
    def placed(file):
        return Value(FLOAT, Blob(file, 64))

    listed = Value(ListType(FLOAT, 1), (placed("in_a_list"),))
    inner = Operation(type="const", outputs=(NamedType("a", FLOAT),),
                      attributes={"val": placed("in_a_block")})
    deep = relu("x", "y", blocks=(Block(operations=(inner,), outputs=("a",)),))
    outer = replace(relu("x", "z", blocks=(Block(operations=(deep,), outputs=("y",)),)),
                    attributes={"hint": listed})
    block = Block(operations=(outer,), outputs=("z",), attributes={"note": placed("of_a_block")})
    main = Function(inputs=(), opset="CoreML7", blocks={"CoreML7": block})

    assert weight_files(Program(functions={"main": main})) == [
        "in_a_block", "in_a_list", "of_a_block",
    ]


def test_a_copy_of_everything_equals_its_source(tmp_path):
    source = read_package(convolutions(tmp_path / "source.mlpackage"))

    write_edited(source, tmp_path / "copy.mlpackage",
                 lambda weights: (copied(source, weights), source.description))

    copy = read_package(tmp_path / "copy.mlpackage")
    assert copy.program.functions == dict(source.program.functions)
    assert copy.description == source.description
    assert copy.specification_version == source.specification_version
    file = "weights/weight.bin"
    assert (copy.root / file).read_bytes() == (source.root / file).read_bytes()


def test_a_blob_is_copied_once_however_often_it_is_used(tmp_path):
    source = read_package(convolutions(tmp_path / "source.mlpackage", layers=1))
    seen = []

    def edit(weights):
        seen.extend(weights.copy(blob) for op in walk(source.program.main.block)
                    for blob in blobs(op) for _ in range(2))
        return copied(source, weights), source.description

    write_edited(source, tmp_path / "copy.mlpackage", edit)

    assert len(seen) == 2 * len(set(seen))
    copy = read_package(tmp_path / "copy.mlpackage")
    assert copy.reader("@model_path/weights/weight.bin").count == len(set(seen))


def test_an_edit_that_fails_leaves_nothing_behind(tmp_path):
    source = read_package(convolutions(tmp_path / "source.mlpackage", layers=1))

    def edit(weights):
        weights.append("fp16", b"\0\0")
        raise MILError("no")

    with pytest.raises(MILError, match="no"):
        write_edited(source, tmp_path / "copy.mlpackage", edit)

    assert [p.name for p in tmp_path.iterdir()] == ["source.mlpackage"]


def test_a_truncated_weight_file_is_an_error_that_names_the_weight(tmp_path):
    source = convolutions(tmp_path / "source.mlpackage", layers=1)
    file = read_package(source).root / "weights" / "weight.bin"
    file.write_bytes(file.read_bytes()[:2000])

    with pytest.raises(InvalidProgram, match=r"const conv0_weight_0: val: .* are outside the file"):
        palettize(source, tmp_path / "ours.mlpackage", nbits=4)

    assert [p.name for p in tmp_path.iterdir()] == ["source.mlpackage"]


def with_blob(model, place):
    """`model` with the blob of its first weight in an attribute of `place`, in a list."""
    main = model.program.main
    blob = next(b for op in walk(main.block) for b in blobs(op))
    pair = TupleType((HALF, HALF))
    value = Value(ListType(pair, 1), (Value(pair, (Value(HALF, blob),) * 2),))
    block, attributes = main.block, {"extra": value}
    if place == "operation":
        first = replace(block.operations[0], attributes={**block.operations[0].attributes,
                                                         **attributes})
        block = replace(block, operations=(first, *block.operations[1:]))
    elif place == "block":
        block = replace(block, attributes=attributes)
    main = replace(main, blocks={main.opset: block},
                   attributes=attributes if place == "function" else {})
    return replace(model, program=replace(
        model.program, functions={"main": main},
        attributes=attributes if place == "program" else model.program.attributes))


def test_blobs_in_lists_and_tuples_move_with_the_others(tmp_path):
    plain = read_package(convolutions(tmp_path / "source.mlpackage", layers=1))
    source = with_blob(plain, "operation")
    padded = moved(source.program.main.block.operations[0], lambda blob: replace(blob, offset=0))

    assert [b.offset for b in blobs(padded)] == [0] * 3

    write_edited(source, tmp_path / "copy.mlpackage",
                 lambda weights: (copied(source, weights), source.description))
    copy = read_package(tmp_path / "copy.mlpackage")
    first = next(walk(copy.program.main.block))
    assert len(set(blobs(first))) == 1
    assert copy.blob(next(blobs(first))) == plain.blob(next(blobs(first)))


@pytest.mark.parametrize(("place", "name"), [
    ("block", "a block of function main"), ("function", "function main"),
    ("program", "the program"),
])
def test_blobs_where_no_edit_looks_are_refused(place, name, tmp_path):
    source = with_blob(read_package(convolutions(tmp_path / "s.mlpackage", layers=1)), place)

    with pytest.raises(UnsupportedFormat, match=f"the attribute extra of {name} is in a weight"):
        write_edited(source, tmp_path / "copy.mlpackage",
                     lambda weights: (copied(source, weights), source.description))

    assert [p.name for p in tmp_path.iterdir()] == ["s.mlpackage"]


def test_a_fresh_name_is_free_and_then_taken():
    taken = {"a", "a_1"}

    assert [fresh("a", taken), fresh("a", taken), fresh("b", taken)] == ["a_2", "a_3", "b"]
    assert taken == {"a", "a_1", "a_2", "a_3", "b"}
