"""Packages survive reading and writing, with the protobuf message as the expected value."""

from dataclasses import replace

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.backend.mil.helper import create_tensor_value
from coremltools.converters.mil.mil import types
from hypothesis import given, settings
from hypothesis import strategies as st

from sdbuild.base.errors import InvalidProgram, UnsupportedFormat
from sdbuild.mil.compress.palettize import palettize
from sdbuild.mil.edit.chunk import chunk
from sdbuild.mil.edit.rewrite import write_edited
from sdbuild.mil.files.arrays import to_array
from sdbuild.mil.files.blob import BlobWriter
from sdbuild.mil.files.package import read_package
from sdbuild.mil.ir.decode import decode_program
from sdbuild.mil.ir.encode import encode_program
from sdbuild.mil.ir.program import Blob, StateType, TensorType
from sdbuild.mil.ir.proto import messages, serialize
from sdbuild.mil.ir.traverse import rebuilt, walk
from sdbuild.mil.text.parse import parse_program
from sdbuild.mil.text.printer import format_program
from tests.mil.packages import IOS16, IOS18, convolutions, edited_in_place, half, quiet, spec_of
from tests.strategies import names, programs

CARRIED = {"Program", "Function", "Block", "Operation", "NamedValueType", "Value", "TensorType"}
UNKNOWN = b"\x82\xfa\x01\x05novel"  # field 4000, five bytes
SMALL_TEXT = (
    "program(1.3) {\n    func main<ios17>(fp32 x) {\n            "
    'fp32 y = relu(x = x)[name = string("y")];\n        } -> (y);\n}'
)


def inner(message):
    """`message` and every message inside it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if not field.is_repeated:
            yield from inner(value)
        elif field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is not None:
                for item in value.values():
                    yield from inner(item)
        else:
            for item in value:
                yield from inner(item)


def described(message, draw):
    """`message` with fields that programs seldom have."""
    for found in list(inner(message)):
        kind = found.DESCRIPTOR.name
        if kind == "Value" and draw(st.booleans()):
            found.docString = draw(names)
        if kind == "TensorType" and draw(st.booleans()):
            found.attributes[draw(names)].CopyFrom(constant(draw(names)))
        if kind == "TensorType" and draw(st.booleans()):
            found.rank = draw(st.integers(1, 9) | st.just(-1))
    return message


def constant(text):
    """The message of a constant string."""
    value = messages("MIL").Value()
    value.type.tensorType.dataType = 2
    value.immediateValue.tensor.strings.values.append(text)
    return value


def opened(message, change):
    """The bytes of `message` after `change` was made to the package's whole message."""
    change(message)
    return serialize(message)


def copied(source, destination):
    """Writes the package of `source` as an edit that changes nothing."""

    def edit(weights):
        return changed_blocks(source.program, weights), source.description

    write_edited(source, destination, edit)
    return destination


def changed_blocks(program, weights):
    return replace(program, functions={
        name: replace(f, blocks={o: rebuilt(b, weights.carry) for o, b in f.blocks.items()})
        for name, f in program.functions.items()
    })


@settings(deadline=None)
@given(programs, st.data())
def test_any_message_is_written_as_it_was_read(program, data):
    message = described(encode_program(program), data.draw)
    expected = serialize(message)

    assert expected == serialize(encode_program(decode_program(message)))


@settings(deadline=None)
@given(programs, st.data())
def test_unknown_fields_survive_wherever_there_is_a_noun_for_their_message(program, data):
    message = described(encode_program(program), data.draw)
    places = [m for m in inner(message) if m.DESCRIPTOR.name in CARRIED]
    for place in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=4)):
        place.MergeFromString(UNKNOWN)
    expected = serialize(message)

    assert b"novel" in expected
    assert expected == serialize(encode_program(decode_program(message)))


@settings(deadline=None)
@given(programs, st.data())
def test_unknown_fields_elsewhere_survive_or_writing_is_refused(program, data):
    message = encode_program(program)
    data.draw(st.sampled_from(list(inner(message)))).MergeFromString(UNKNOWN)
    expected = serialize(message)

    read = decode_program(message)

    if read.unwritable:
        with pytest.raises(UnsupportedFormat, match="without loss: unknown fields"):
            encode_program(read)
    else:
        assert expected == serialize(encode_program(read))


def test_an_entry_that_protobuf_sets_aside_is_refused_and_not_overlooked():
    """Else the program would lack a function, or an operation an argument."""
    entry = b"\x0a\x04main" + b"\x12\x00" + UNKNOWN
    message = messages("MIL").Program.FromString(b"\x12" + bytes([len(entry)]) + entry)
    assert not message.functions

    with pytest.raises(UnsupportedFormat, match="functions has a form that is not known"):
        decode_program(message)


def test_a_dimension_with_an_unknown_field_can_be_read_but_not_edited(tmp_path):
    def change(spec):
        dimension = next(m for m in inner(spec.mlProgram) if m.DESCRIPTOR.name == "Dimension")
        dimension.MergeFromString(UNKNOWN)

    source = edited_in_place(convolutions(tmp_path / "source.mlpackage", layers=1), change)

    assert "conv" in {op.type for op in walk(read_package(source).program.main.block)}
    with pytest.raises(UnsupportedFormat, match="cannot be written without loss"):
        palettize(source, tmp_path / "edited.mlpackage", nbits=4)
    assert [p.name for p in tmp_path.iterdir()] == ["source.mlpackage"]


@pytest.mark.parametrize("edit", ["palettize", "chunk"])
def test_edits_keep_unknown_fields_of_what_they_do_not_change(edit, tmp_path):
    source = edited_in_place(convolutions(tmp_path / "source.mlpackage"), lambda spec: [
        place.MergeFromString(UNKNOWN)
        for place in (spec, spec.description, spec.mlProgram, *(
            m for m in inner(spec.mlProgram)
            if m.DESCRIPTOR.name == "Operation" and m.type in ("relu", "conv")
        ))
    ])
    there = [tmp_path / "1.mlpackage", tmp_path / "2.mlpackage"]

    if edit == "palettize":
        del there[1]
        palettize(source, there[0], nbits=4)
    else:
        chunk(source, there)

    kept = [m for path in there for m in inner(spec_of(path).mlProgram)
            if m.DESCRIPTOR.name == "Operation" and m.type in ("relu", "conv")]
    assert len(kept) == 8
    assert all(b"novel" in serialize(m) for m in kept)
    for path in there:
        spec = spec_of(path)
        model_level = type(spec)()
        model_level.CopyFrom(spec)
        model_level.ClearField("mlProgram")
        model_level.ClearField("description")
        assert b"novel" in serialize(model_level)
        assert b"novel" in serialize(spec.description)


@pytest.mark.parametrize("kind", ["Program", "Function", "Block", "Operation", "Value"])
def test_what_text_cannot_say_is_not_printed(kind):
    program = parse_program(SMALL_TEXT)
    assert SMALL_TEXT == format_program(program, "1.3")
    message = encode_program(program)
    next(m for m in inner(message) if m.DESCRIPTOR.name == kind).MergeFromString(UNKNOWN)

    with pytest.raises(UnsupportedFormat, match="text of unknown fields"):
        format_program(decode_program(message), "1.3")


def test_updatable_stays_updatable(tmp_path):
    source = edited_in_place(convolutions(tmp_path / "source.mlpackage", layers=1),
                       lambda spec: setattr(spec, "isUpdatable", True))

    palettize(source, tmp_path / "edited.mlpackage", nbits=4)

    assert spec_of(tmp_path / "edited.mlpackage").isUpdatable


@pytest.mark.parametrize("dtype", [
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "float16", "float32",
    "float64",
])
def test_constants_in_place_are_those_that_coremltools_wrote(dtype):
    expected = np.array([[0, 1, 1], [100, 7, 0]], dtype)
    program = messages("MIL").Program()
    program.attributes["constant"].ParseFromString(
        create_tensor_value(expected).SerializeToString())

    read = decode_program(program)

    found = to_array(None, read.attributes["constant"])
    assert (expected.dtype, expected.tolist()) == (found.dtype, found.tolist())
    assert serialize(program) == serialize(encode_program(read))


def test_a_number_too_large_for_its_type_is_refused():
    program = messages("MIL").Program()
    value = program.attributes["constant"]
    value.type.tensorType.dataType = 22  # int16, which is stored in 32 bits
    value.immediateValue.tensor.ints.values.append(1 << 15)

    with pytest.raises(InvalidProgram, match="a int16 constant holds a larger number"):
        decode_program(program)


# contents of packages


def flexible(path):
    """Ranges, enumerated shapes and an image, from coremltools' converter."""

    class Network(torch.nn.Module):
        def forward(self, ranged, image):
            return torch.relu(ranged), image * 2.0

    example = torch.zeros(1, 4), torch.zeros(1, 3, 8, 8)
    with quiet():
        ct.convert(
            torch.jit.trace(Network().eval(), example), minimum_deployment_target=IOS16,
            inputs=[ct.TensorType("ranged", shape=(1, ct.RangeDim(1, 9, default=4))),
                    ct.ImageType("image", shape=(1, 3, 8, 8), scale=1 / 255)],
            skip_model_load=True,
        ).save(str(path))
    return path


def stateful(path):
    @mb.program(input_specs=[mb.TensorSpec((4,), dtype=types.fp16),
                             mb.StateTensorSpec((4,), dtype=types.fp16)], opset_version=IOS18)
    def program(x, memory):
        held = mb.read_state(input=memory)
        total = mb.add(x=x, y=held)
        mb.coreml_update_state(state=memory, value=total)
        return mb.relu(x=total, name="out")

    with quiet():
        ct.convert(program, convert_to="mlprogram", minimum_deployment_target=IOS18,
                   skip_model_load=True).save(str(path))
    return path


def several_functions(path):
    folder = path.parent
    for name in ("small", "large"):
        convolutions(folder / f"{name}.mlpackage", IOS18, layers=1 if name == "small" else 2)
    with quiet():
        functions = ct.utils.MultiFunctionDescriptor()
        for name in ("small", "large"):
            functions.add_function(str(folder / f"{name}.mlpackage"), "main", name)
        functions.default_function_name = "small"
        ct.utils.save_multifunction(functions, str(path))
    return path


def two_weight_files(path):
    """A package whose second convolution has its weight in a file of its own."""
    convolutions(path, layers=2)
    model = read_package(path)
    blobs = [op.attributes["val"].data for op in walk(model.program.main.block)
             if op.type == "const" and isinstance(op.attributes["val"].data, Blob)]
    place = blobs[-1]
    with BlobWriter(model.root / "weights" / "second.bin") as writer:
        offset = writer.write("fp16", model.blob(place))

    def change(spec):
        for message in inner(spec.mlProgram):
            is_place = message.DESCRIPTOR.name == "BlobFileValue"
            if is_place and message.offset == place.offset:
                message.fileName = "@model_path/weights/second.bin"
                message.offset = offset

    return edited_in_place(path, change)


@pytest.mark.parametrize("make", [flexible, stateful, several_functions, two_weight_files])
def test_what_coremltools_writes_is_written_back_but_for_where_blobs_lie(make, tmp_path):
    source = read_package(make(tmp_path / "source.mlpackage"))

    copy = copied(source, tmp_path / "copy.mlpackage")

    def neutral(spec):
        for message in inner(spec.mlProgram):
            if message.DESCRIPTOR.name == "BlobFileValue":
                message.Clear()

    assert opened(spec_of(source.source), neutral) == opened(spec_of(copy), neutral)
    assert weights_of(source) == weights_of(read_package(copy))
    with quiet():
        ct.models.MLModel(str(copy), skip_model_load=True)


def weights_of(model):
    """The bytes of every constant in a weight file, in the order of the program."""
    return [
        bytes(model.blob(op.attributes["val"].data))
        for function in model.program.functions.values() for op in walk(function.block)
        if op.type == "const" and isinstance(op.attributes["val"].data, Blob)
    ]


def test_weights_of_all_functions_and_files_arrive(tmp_path):
    functions = read_package(several_functions(tmp_path / "functions.mlpackage"))
    files = read_package(two_weight_files(tmp_path / "files.mlpackage"))

    assert sorted(functions.program.functions) == ["large", "small"]
    assert [len(w) for w in weights_of(files)].count(36 * 36 * 9 * 2) == 2
    assert half(36, 36, 3, 3, seed=1).tobytes() in weights_of(files)


def test_states_are_inputs_of_their_own_type_and_are_described(tmp_path):
    model = read_package(stateful(tmp_path / "m.mlpackage"))

    kinds = {item.name: item.type for item in model.program.main.inputs}
    assert StateType(TensorType("fp16", (4,))) in kinds.values()
    assert [state.name for state in model.description.state] == [
        name for name, kind in kinds.items() if isinstance(kind, StateType)
    ]
