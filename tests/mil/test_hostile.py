"""Broken and hostile files are refused by our own errors, in little memory and time.

Hostile text is in `test_text.py`, hostile descriptions of compiled models in `test_compile.py`;
`tests/fuzz/` fuzzes the readers at length. What that found is kept here.
"""

import json
import os
import random
import shutil
import struct
import tempfile
import time
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packages import convolutions

from sdbuild.cli import main
from sdbuild.errors import InvalidProgram, UnsupportedFormat
from sdbuild.mil.arrays import to_array
from sdbuild.mil.blob import BlobReader, BlobWriter
from sdbuild.mil.decode import decode_program
from sdbuild.mil.package import model_file, read_package, write_package
from sdbuild.mil.palettize import palettize
from sdbuild.mil.parse import parse_program
from sdbuild.mil.program import Blob, TensorType, Value
from sdbuild.mil.proto import messages, serialize
from sdbuild.mil.verify import verify

PLACE = "com.apple.CoreML/model.mlmodel"
RECORD = struct.Struct("<IIQQQ32x")
HUGE = 1 << 62
WIDEST = 10 ** 18 - 1  # that text can say
MOST_SECONDS = 5
MOST_BYTES = 64 << 20


@contextmanager
def bounded():
    """Fails if what is inside takes much time or memory, arrays of numpy included."""
    start = time.perf_counter()
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - start < MOST_SECONDS
    assert peak < MOST_BYTES


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return convolutions(tmp_path_factory.mktemp("hostile") / "source.mlpackage", layers=2)


def small_package(path, text, change=lambda spec: None):
    """A package of the program in `text`, its message changed."""
    write_package(path, specification_version=8, description=messages("Model").ModelDescription(),
                  program=parse_program(text), weights=None)
    spec = messages("Model").Model.FromString(model_file(path).read_bytes())
    change(spec)
    model_file(path).write_bytes(serialize(spec))
    return path


def relu_text(kind="tensor<fp32, [4]>"):
    return (f"program(1.0) {{ func main<ios17>({kind} x) {{"
            f"{kind} y = relu(x = x); }} -> (y); }}")


def named(place, package):
    """Makes the manifest of `package` name `place`."""
    (package / "Manifest.json").write_text(json.dumps(
        {"itemInfoEntries": {"a": {"path": place}}, "rootModelIdentifier": "a"}))
    return package


# packages


@pytest.mark.parametrize("content", [
    "", "[]", "null", "3", '"a"', "{", "\x00", "[" * 200_000, '{"a":' * 200_000,
    '{"rootModelIdentifier": "a"}',
    '{"rootModelIdentifier": ["a"], "itemInfoEntries": {}}',
    '{"rootModelIdentifier": "a", "itemInfoEntries": []}',
    '{"rootModelIdentifier": "a", "itemInfoEntries": {"a": "path"}}',
    '{"rootModelIdentifier": 0, "itemInfoEntries": [{}]}',
    "1" * 5000,
], ids=range(15))
def test_manifests_that_are_none_are_refused(content, tmp_path):
    (tmp_path / "Manifest.json").write_text(content)

    with bounded(), pytest.raises(InvalidProgram, match=r"Manifest\.json: not a package manifest"):
        read_package(tmp_path)


@pytest.mark.parametrize("place", [
    "../../secret.mlmodel", "/etc/passwd", "..", "", ".", PLACE + "/x", "a" * 300, "a\0b",
    "\ud800", ["a"], None, {}, 1,
], ids=repr)
def test_manifests_that_name_no_file_of_the_package_are_refused(place, tmp_path):
    package = tmp_path / "m.mlpackage"
    (package / "Data").mkdir(parents=True)
    (tmp_path / "secret.mlmodel").write_bytes(b"")

    with pytest.raises(InvalidProgram, match="which is not a file of the package"):
        read_package(named(place, package))


def test_links_that_lead_out_of_the_package_or_in_a_circle_are_refused(source, tmp_path):
    package = tmp_path / "m.mlpackage"
    shutil.copytree(source, package)
    file = model_file(package)
    outside = shutil.move(file, tmp_path / "outside.mlmodel")

    for target in (outside, file):
        file.unlink(missing_ok=True)
        file.symlink_to(target)
        with pytest.raises(InvalidProgram, match="which is not a file of the package"):
            read_package(package)


def test_a_weight_file_that_is_a_link_out_of_the_package_is_refused(source, tmp_path):
    package = tmp_path / "m.mlpackage"
    shutil.copytree(source, package)
    weights = read_package(package).root / "weights"
    outside = shutil.move(weights, tmp_path / "outside")

    weights.symlink_to(outside)
    with pytest.raises(InvalidProgram, match="is a link that leads out of the folder"):
        read_package(package).reader("@model_path/weights/weight.bin")

    weights.unlink()
    weights.mkdir()
    (weights / "weight.bin").symlink_to(weights / "weight.bin")
    with pytest.raises(InvalidProgram, match="there is no such weight file"):
        read_package(package).reader("@model_path/weights/weight.bin")


@pytest.mark.parametrize("name", [
    "@model_path/../secret", "/etc/passwd", "", "@model_path", "@model_path/..",
    "weights/weight.bin", "@model_path/weights/\0", "@model_path/a/../../../b",
])
def test_names_of_weight_files_do_not_lead_out_of_the_package(name, source):
    with pytest.raises(InvalidProgram, match="expected one below @model_path/"):
        read_package(source).reader(name)


@pytest.mark.parametrize("name", ["weights", "weights/none.bin", "a" * 300, "weights/weight.bin/x"])
def test_weight_files_that_are_no_files_are_refused(name, source):
    with pytest.raises(InvalidProgram, match="there is no such weight file"):
        read_package(source).reader(f"@model_path/{name}")


@pytest.mark.parametrize(("file", "size"), [("model", 1 << 31), ("manifest", 1 << 34)])
def test_files_larger_than_a_message_or_a_manifest_are_not_read(file, size, source, tmp_path):
    package = tmp_path / "m.mlpackage"
    shutil.copytree(source, package)
    place = model_file(package) if file == "model" else package / "Manifest.json"
    os.truncate(place, size)  # sparse

    with bounded(), pytest.raises(InvalidProgram, match=f"{size} bytes, expected at most"):
        read_package(package)


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

    package = small_package(tmp_path / "m.mlpackage", relu_text(), deepen)

    with bounded():
        assert verify(package)
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
    package = small_package(tmp_path / "m.mlpackage", relu_text(kind))

    with bounded():
        assert main(["mil", "run", str(package)]) == 1
    assert "expected at most" in (err := capsys.readouterr().err) or "not known" in err


def test_results_of_absurd_shapes_are_no_traceback(tmp_path, capsys):
    text = (f"program(1.0) {{ func main<ios17>(tensor<fp32, [1]> x) {{"
            f"tensor<int32, [2]> s = const()[val = tensor<int32, [2]>([2147483647, 2147483647])];"
            f"tensor<fp32, [{(1 << 31) - 1}, {(1 << 31) - 1}]> y = fill(shape = s, value = x);"
            "} -> (y); }")
    package = small_package(tmp_path / "m.mlpackage", text)

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
    (take_the_name, "a constant gives no value"),
    (take_the_value, "a constant has no value"),
])
def test_what_lacks_a_binding_a_name_or_a_value_is_told(
    change, expected, command, source, tmp_path, capsys
):
    package = tmp_path / "m.mlpackage"
    shutil.copytree(source, package)
    spec = messages("Model").Model.FromString(model_file(package).read_bytes())
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    change(block)
    model_file(package).write_bytes(serialize(spec))

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


# weight files


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
    ((64, 1, 1 << 63, 128, 0), "lie outside the file's 1024"),
    ((64, 1, 64, (1 << 64) - 64, 0), "lie outside"),
    ((64, 1, 64, 0, 0), "lie outside"),
    ((64, 1, 64, 64, 0), "lie outside"),
    ((64, 1, 64, 992, 0), "lie outside"),
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
