"""Broken and hostile messages and shapes are refused by our own errors, in little memory and time.

Packages, weight files and compiled models are in `test_hostile_*.py`, text in `test_text.py`;
`tests/fuzz/` fuzzes the readers at length. What that found is kept here.
"""

import random
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdbuild.base.errors import InvalidProgram
from sdbuild.cli.main import main
from sdbuild.mil.files.arrays import to_array
from sdbuild.mil.files.package import model_file, read_package
from sdbuild.mil.inspect.verify import verify
from sdbuild.mil.ir.decode import decode_program
from sdbuild.mil.ir.program import Blob, TensorType, Value
from sdbuild.mil.ir.proto import messages
from tests.mil.hostile import bounded
from tests.mil.packages import edited, edited_in_place, main_block
from tests.mil.small import relu_text, small_package

HUGE = 1 << 62
WIDEST = 10 ** 18 - 1  # that text can say
NOTHING = messages("Model").ModelDescription()


# messages


def test_every_truncated_message_is_refused_or_verified(source, tmp_path):
    package = tmp_path / "m.mlpackage"
    shutil.copytree(source, package)
    file = model_file(package)
    data = file.read_bytes()

    for length in range(0, len(data), 17):
        file.write_bytes(data[:length])
        assert verify(package), length


def delimited(number, content):
    """A length-delimited field of a protobuf message."""
    size, length = len(content), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def nested(depth, wrap):
    content = b""
    for _ in range(depth):
        content = wrap(content)
    return content


@pytest.mark.parametrize("content", [
    nested(20_000, lambda c: delimited(3, delimited(4, c))),  # blocks in operations in blocks
    nested(20_000, lambda c: delimited(3, delimited(3, c))),  # lists of lists
    b"\x0a" * 100_000, b"\x1b" * 100_000, b"\xff" * 1000,
], ids=range(5))
def test_messages_nested_without_end_are_refused(content, source, tmp_path):
    package = tmp_path / "m.mlpackage"
    shutil.copytree(source, package)
    model_file(package).write_bytes(b"\xb2\x1f" + delimited(0, content)[1:])  # field 502

    with bounded(), pytest.raises(InvalidProgram, match="not a Core ML model"):
        read_package(package)


def test_blocks_as_deep_as_protobuf_allows_are_walked(source, tmp_path):
    def deepen(spec):
        block = spec.mlProgram.functions["main"].block_specializations["CoreML7"]
        for _ in range(40):
            block = block.operations.add(type="cond").blocks.add()

    package = edited_in_place(small_package(tmp_path / "m.mlpackage"), deepen)

    with bounded():
        assert verify(package) == ()
        for command in ("show", "ops", "weights", "run"):
            assert main(["mil", command, str(package)]) in (0, 1)


# shapes


@pytest.mark.parametrize("shape", [(HUGE,), (HUGE, 0), (HUGE, HUGE), (1,) * 200, (2,) * 70],
                         ids=str)
@pytest.mark.parametrize("dtype", ["fp16", "uint4", "string", "bool"])
def test_constants_of_absurd_shapes_are_refused_without_allocation(dtype, shape):
    value = Value(TensorType(dtype, shape), () if dtype == "string" else b"")

    with bounded():
        try:
            assert to_array(None, value).size == 0
        except InvalidProgram as error:
            assert "expected" in str(error) or "elements" in str(error)


def test_a_blob_for_a_string_is_refused():
    value = Value(TensorType("string", (1,)), Blob("@model_path/weights/weight.bin", 64))

    with pytest.raises(InvalidProgram):
        to_array(None, value)


@pytest.mark.parametrize("kind", [
    f"tensor<fp32, [{WIDEST}]>", f"tensor<fp16, [{1 << 31}, 2]>", "tensor<fp32, [?, ?]>",
    "tensor<fp32, [...]>", f"state<tensor<fp32, [{WIDEST}]>>",
])
def test_inputs_of_absurd_or_unknown_shapes_are_not_made_up(kind, tmp_path, capsys):
    package = small_package(tmp_path / "m.mlpackage", relu_text(kind), description=NOTHING)

    with bounded():
        assert main(["mil", "run", str(package)]) == 1
    assert "expected at most" in (err := capsys.readouterr().err) or "not known" in err


def test_results_of_absurd_shapes_are_no_traceback(tmp_path, capsys):
    text = (f"program(1.0) {{ func main<ios17>(tensor<fp32, [1]> x) {{"
            f"tensor<int32, [2]> s = const()[val = tensor<int32, [2]>([2147483647, 2147483647])];"
            f"tensor<fp32, [{(1 << 31) - 1}, {(1 << 31) - 1}]> y = fill(shape = s, value = x);"
            "} -> (y); }")
    package = small_package(tmp_path / "m.mlpackage", text, description=NOTHING)

    with bounded():
        assert main(["mil", "run", str(package)]) == 1
    assert "expected at most 2147483648 elements" in capsys.readouterr().err


def unbind(block):
    del next(o for o in block.operations if o.type == "conv").inputs["weight"].arguments[:]


def take_the_name(block):
    del next(o for o in block.operations if o.type == "const").outputs[:]


def take_the_value(block):
    del next(o for o in block.operations if o.type == "const").attributes["val"]


@pytest.mark.parametrize("command", ["run", "verify"])
@pytest.mark.parametrize(("change", "expected"), [
    (unbind, "weight: it is bound to nothing"),
    (take_the_name, "a constant has no value"),
    (take_the_value, "a constant has no value"),
])
def test_what_lacks_a_binding_a_name_or_a_value_is_reported(
    change, expected, command, source, tmp_path, capsys
):
    package = edited(source, tmp_path / "m.mlpackage", lambda spec: change(main_block(spec)))

    assert main(["mil", command, str(package)]) == 1
    out, err = capsys.readouterr()
    assert expected in out + err


def test_a_dimension_of_neither_kind_and_a_lost_rank_are_refused():
    program = messages("MIL").Program()
    kind = program.attributes["a"].type.tensorType
    kind.dataType = 10
    kind.dimensions.add()
    with pytest.raises(InvalidProgram, match="neither constant nor unknown"):
        decode_program(program)

    kind.dimensions[0].constant.size = 1
    with pytest.raises(InvalidProgram, match="a tensor of rank 0 has 1 dimensions"):
        decode_program(program)


# everything at once


def mutated(data, seed):
    """`data` with a few bytes changed, removed, doubled or swapped for interesting ones."""
    chance = random.Random(seed)
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(found))
        match chance.randrange(5):
            case 0:
                found[at] ^= 1 << chance.randrange(8)
            case 1:
                del found[at:at + chance.randrange(1, 20)]
            case 2:
                found[at:at] = found[at:at + chance.randrange(1, 40)]
            case 3:
                found[at] = chance.choice((0, 1, 63, 64, 127, 128, 255))
            case 4:
                found[at:at + 9] = b"\xff" * 8 + b"\x7f"
        if not found:
            return b""
    return bytes(found)


@pytest.mark.parametrize("file", ["model", "weights"])
@settings(deadline=None, max_examples=20, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1 << 32))
def test_no_command_ends_with_a_traceback_on_a_mutated_package(file, seed, source, tmp_path):
    package = tmp_path / "m.mlpackage"
    shutil.rmtree(tmp_path)
    shutil.copytree(source, package)
    root = read_package(package).root
    place = model_file(package) if file == "model" else root / "weights" / "weight.bin"
    place.write_bytes(mutated(place.read_bytes(), seed))

    for command in (
        ["show"], ["show", "--text"], ["ops"], ["weights"], ["verify"], ["run"],
        ["palettize", tmp_path / "p.mlpackage", "--bits", "2"],
        ["quantize", tmp_path / "q.mlpackage", "--bits", "8"],
        ["chunk", tmp_path / "1.mlpackage", tmp_path / "2.mlpackage"],
        ["compile", tmp_path / "m.mlmodelc"], ["diff", source],
    ):
        status = main(["mil", command[0], str(package), *map(str, command[1:])])
        assert status in (0, 1), (command, seed)
