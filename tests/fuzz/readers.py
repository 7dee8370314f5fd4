"""Fuzzes the readers of ML Programs with atheris; `README.md` beside it says how to run it."""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["sdbuild"]):
    from sdbuild.base.errors import MILError
    from sdbuild.mil.files.arrays import to_array
    from sdbuild.mil.files.blob import BlobReader
    from sdbuild.mil.files.coremldata import unpack_description
    from sdbuild.mil.files.package import MANIFEST_FILE, model_file
    from sdbuild.mil.files.validate import blocks
    from sdbuild.mil.inspect.summary import read_models
    from sdbuild.mil.inspect.verify import verify
    from sdbuild.mil.ir.decode import decode_program
    from sdbuild.mil.ir.encode import encode_program
    from sdbuild.mil.ir.program import Value
    from sdbuild.mil.ir.proto import messages, serialize
    from sdbuild.mil.ir.traverse import walk
    from sdbuild.mil.text.parse import parse_program
    from sdbuild.mil.text.printer import DIALECTS, format_program

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))
MODEL_PLACE = "com.apple.CoreML/model.mlmodel"
MANIFEST = (f'{{"itemInfoEntries": {{"a": {{"path": "{MODEL_PLACE}"}}}}, '
            '"rootModelIdentifier": "a"}')


def model(data):
    """A `MILSpec.Program`: what is read is written back as the same message, or refused."""
    message = messages("MIL").Program()
    try:
        message.ParseFromString(data)
    except Exception:  # protobuf's own DecodeError
        return
    program = decode_program(message)
    if not program.unwritable:
        again = decode_program(encode_program(program))
        assert serialize(encode_program(again)) == serialize(encode_program(program))


def package(data):
    """A package with a broken `.mlmodel`: verified, and each constant in place decoded."""
    place = FOLDER / "m.mlpackage" / "Data" / MODEL_PLACE
    place.parent.mkdir(parents=True, exist_ok=True)
    (FOLDER / "m.mlpackage" / MANIFEST_FILE).write_text(MANIFEST)
    place.write_bytes(data)
    verify(FOLDER / "m.mlpackage")
    for found in read_models(FOLDER / "m.mlpackage"):
        for _, _, block in blocks(found):
            for operation in walk(block):
                for value in operation.constants():
                    decode(found, value)


def decode(found, value: Value):
    """A constant as an array, if it is sound."""
    try:
        to_array(found, value)
    except MILError:
        return


def text(data):
    """MIL text: what is read prints to text that reads the same."""
    program = parse_program(data.decode("utf-8", "replace"))
    for dialect in DIALECTS:
        printed = format_program(program, dialect)
        assert parse_program(printed) == parse_program(format_program(
            parse_program(printed), dialect))


def weights(data):
    """A weight file: its records in a row, and at every place where one could be."""
    place = FOLDER / "weight.bin"
    place.write_bytes(data)
    total = sum(record.count for record in BlobReader(place).records())
    assert 0 <= total <= 8 * len(data)
    reader, claimed = BlobReader(place), 0
    for offset in range(64, len(data), 64):
        try:
            claimed += len(reader.data(offset))
        except MILError:
            continue
    assert claimed <= len(data)


def description(data):
    """A `coremldata.bin`."""
    unpack_description(data, "coremldata.bin")


def manifest(data):
    """A `Manifest.json`: the file that it names is in the package."""
    place = FOLDER / "manifest.mlpackage"
    place.mkdir(exist_ok=True)
    (place / MANIFEST_FILE).write_bytes(data)
    assert model_file(place).resolve().is_relative_to(place.resolve())


TARGETS = (model, package, text, weights, description, manifest)


def guarded(target):
    """`target`, our own errors being what is wanted."""

    def run(data):
        try:
            target(data)
        except MILError as error:
            assert str(error)

    return run


def main():
    """Runs the target that the first argument names; the others are libFuzzer's."""
    names = {target.__name__: target for target in TARGETS}
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(names)} CORPUS [-libFuzzer options]")
    atheris.Setup([sys.argv[0], *sys.argv[2:]], guarded(names[sys.argv[1]]))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
