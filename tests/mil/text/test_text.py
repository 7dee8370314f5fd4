import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdbuild.base.errors import InvalidProgram, MILError, UnsupportedFormat
from sdbuild.mil.ir.program import Blob, Block, Operation, StateType, TensorType, Value
from sdbuild.mil.text.parse import parse_program
from sdbuild.mil.text.printer import DIALECTS, dialect_of, format_program
from tests.counting import bounded_calls
from tests.strategies import programs

FIXTURES = Path(__file__).parents[2] / "fixtures" / "mlmodelc"
TEXTS = sorted(FIXTURES.glob("**/*.mil"))
SMALL = (FIXTURES / "text" / "quantized-constexpr.mil").read_text("utf-8")

HEAD = "program(1.3) {\n    func main<ios17>(fp32 x) {\n            "
TAIL = ";\n        } -> (a);\n}"


def with_value(text):
    """A program of one constant."""
    return f"{HEAD}fp32 a = const()[val = {text}]{TAIL}"


def value_in(text):
    """The constant of a program of one."""
    return parse_program(text).main.block.operations[0].attributes["val"]


def program_of(value):
    """The program of one constant."""
    program = parse_program(with_value("fp32(0x0p+0)"))
    function = program.main
    constant = replace(function.block.operations[0], attributes={"val": value})
    block = replace(function.block, operations=(constant,))
    return replace(program, functions={"main": replace(function, blocks={"CoreML7": block})})


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: p.relative_to(FIXTURES).as_posix())
def test_what_apples_compiler_wrote_prints_back_to_the_same_bytes(path):
    text = path.read_bytes().decode("utf-8")
    dialect = text.partition("(")[2].partition(")")[0]

    printed = format_program(parse_program(text), dialect)

    assert text == printed


@given(programs, st.sampled_from(DIALECTS))
def test_any_program_reads_back_from_its_text(program, dialect):
    assert program == parse_program(format_program(program, dialect))


def test_white_space_has_no_meaning():
    spread = SMALL.replace(" ", "\n\t").replace("(", " ( ").replace("[", " [\n")

    assert parse_program(SMALL) == parse_program(spread)


def test_text_of_the_oldest_compiler_has_no_build_info():
    program = parse_program(with_value("fp32(0x1p+0)"))

    assert program.attributes == {}
    assert with_value("fp32(0x1p+0)") == format_program(program, "1.3")


@pytest.mark.parametrize(("dtype", "number", "text"), [
    ("fp32", 1.0, "0x1p+0"),
    ("fp32", -0.5, "-0x1p-1"),
    ("fp32", 0.0, "0x0p+0"),
    ("fp32", -0.0, "-0x0p+0"),
    ("fp16", 0.1, "0x1.998p-4"),
    ("fp32", 0.1, "0x1.99999ap-4"),
    ("fp16", 65504.0, "0x1.ffcp+15"),
    ("fp16", 2.0 ** -24, "0x1p-24"),
    ("fp32", 2.0 ** -149, "0x1p-149"),
    ("fp32", float("inf"), "inf"),
    ("fp16", float("-inf"), "-inf"),
    ("fp32", float("nan"), "nan"),
])
def test_numbers_are_normalised_c99_hexadecimals(dtype, number, text):
    value = Value(TensorType(dtype), struct.pack("<e" if dtype == "fp16" else "<f", number))

    printed = format_program(program_of(value), "1.3")

    assert with_value(f"{dtype}({text})") == printed
    assert value == value_in(printed)


def test_tensors_nest_by_shape():
    value = value_in(with_value("tensor<int32, [2, 1, 2]>([[[1, -2]], [[3, 4]]])"))

    assert Value(TensorType("int32", (2, 1, 2)), struct.pack("<4i", 1, -2, 3, 4)) == value


def test_a_blob_is_a_place_in_a_weight_file():
    blob = 'BLOBFILE(path = string("@model_path/weights/w.bin"), offset = uint64(64))'

    assert Blob("@model_path/weights/w.bin", 64) == value_in(
        with_value(f"tensor<fp16, [4]>({blob})")
    ).data


def test_states_are_read_and_written_by_operations_with_and_without_outputs():
    text = (
        "program(1.3) {\n    func main<ios18>(state<tensor<fp16, [2]>> s) {\n"
        "            tensor<fp16, [2]> v = read_state(input = s);\n"
        "            write_state(data = v, input = s);\n"
        "        } -> (v);\n}"
    )

    program = parse_program(text)

    assert StateType(TensorType("fp16", (2,))) == program.main.inputs[0].type
    assert program.main.block.operations[1].outputs == ()
    assert text == format_program(program, "1.3")


def test_ten_megabytes_of_text_read_and_print_in_a_few_calls_for_each_number():
    numbers = ", ".join(["0x1.0ecp-7"] * 850_000)
    text = with_value(f"tensor<fp16, [850000]>([{numbers}])")

    with bounded_calls(20 * 850_000):
        assert text == format_program(parse_program(text), "1.3")

    assert len(text) > 10_000_000


def test_an_error_says_where_what_was_found_and_what_was_expected():
    text = SMALL.replace("add(x = input", "add(x ; input")

    with pytest.raises(InvalidProgram) as caught:
        parse_program(text, "unet/model.mil")

    assert str(caught.value) == "unet/model.mil: line 6, column 46: found ';', expected '='"
    assert caught.value.facts == {"line": 6, "column": 46}


def test_every_truncated_text_is_refused():
    for length in range(len(SMALL)):
        with pytest.raises(MILError):
            parse_program(SMALL[:length])


@pytest.mark.parametrize("text", [
    SMALL + "}",
    SMALL.replace("ios17", "ios12"),
    SMALL.replace("ios17", "ios19"),
    SMALL.replace("int8(-1)", "int8(-129)"),
    SMALL.replace("int8(-1)", "int8(1_0)"),
    SMALL.replace("int8(-1)", "int8([-1])"),
    SMALL.replace("int8(-1)", "int8(state)"),
    SMALL.replace("0x1p-1", "0.5"),
    SMALL.replace("0x1p-1", "0x1p+9999"),
    SMALL.replace("0x1p-1", "0x1p-1, 0x1p-1"),
    SMALL.replace("uint64(64)", "int32(64)"),
    SMALL.replace("path", "file"),
    SMALL.replace("scale =", "axis ="),
    SMALL.replace("tensor<fp32, [4]>", "tensor<fp31, [4]>"),
    SMALL.replace("dict<string, string>", "dict<string>"),
    SMALL.replace("dict<string, string>", "state<string>"),
    with_value("tensor<int32, [2, 2]>([1, 2, 3, 4])"),
    with_value("tensor<int32, [2, 2]>([[1, 2], [3]])"),
    with_value("tensor<bool, [2]>([true, 1])"),
    with_value('tensor<string, [2]>(["a"])'),
    with_value("int32(" + "9" * 100_000 + ")"),
    with_value("tensor<int32, [1]>(" + "[" * 1_000_000),
    with_value("tensor<int8, [999999999999]>([1])"),
    with_value("tensor<int8, [99999, 99999, 99999, 99999]>([1])"),
    with_value("tensor<int8, [" + "1, " * 100_000 + "1]>(1)"),
    with_value("list<" * 100_000),
    with_value("tuple<dict<string, " * 100_000),
    with_value('string("a\nb")'),
    "[" * 1_000_000,
    "\x00",
], ids=range(30))
def test_hostile_text_is_refused_in_bounded_work(text):
    with bounded_calls(1000 + 5 * len(text)), pytest.raises(InvalidProgram):
        parse_program(text)


@pytest.mark.parametrize("text", [
    SMALL.replace("1.3", "1.4"),
    SMALL.replace("add(x = input, y = constant)", "cond(pred = input) { }"),
    with_value("int4(1)"),
    with_value("tensor<fp32, [?, ?]>([[0x0p+0]])"),
    with_value("tensor<fp32, [2, 0]>([[], []])"),
    with_value('tensor<string, [1, 1]>([["a"]])'),
])
def test_unknown_text_is_refused_as_such(text):
    with pytest.raises(UnsupportedFormat):
        parse_program(text)


@pytest.mark.parametrize("value", [
    Value(TensorType("string"), ('say "a"',)),
    Value(TensorType("string"), ("a\\b",)),
    Value(TensorType("string"), ("a\nb",)),
    Value(TensorType("uint4", (2,)), b"\x21"),
    Value(TensorType("bf16"), b"\0\0"),
    Value(TensorType("fp32", (10 ** 12, 0)), b""),
])
def test_constants_whose_text_is_unknown_are_not_printed(value):
    with pytest.raises(UnsupportedFormat):
        format_program(program_of(value), "1.3")


@pytest.mark.parametrize("value", [
    Value(TensorType("fp32", (2,)), bytes(4)),
    Value(TensorType("fp32"), bytes(3)),
    Value(TensorType("string"), ()),
    Value(StateType(TensorType("fp32")), bytes(4)),
])
def test_constants_that_do_not_fit_their_type_are_not_printed(value):
    with pytest.raises(InvalidProgram):
        format_program(program_of(value), "1.0")


def test_nested_blocks_strange_names_and_unknown_versions_are_not_printed():
    program = parse_program(SMALL)
    function = program.main
    inner = Operation(type="cond", blocks=(Block(operations=(), outputs=()),))
    strange = Operation(type="a/b")

    for operation in (inner, strange):
        block = replace(function.block, operations=(operation,))
        changed = replace(function, blocks={function.opset: block})
        with pytest.raises(UnsupportedFormat):
            format_program(replace(program, functions={"main": changed}), "1.3")
    with pytest.raises(UnsupportedFormat):
        format_program(replace(program, functions={"main": replace(function, opset="CoreML9")}),
                       "1.3")
    with pytest.raises(UnsupportedFormat):
        format_program(program, "1.2")


def test_the_dialect_follows_the_specification_version():
    assert [dialect_of(version) for version in range(6, 10)] == ["1.0", "1.0", "1.0", "1.3"]
    for version in (5, 10):
        with pytest.raises(MILError):
            dialect_of(version)
