"""Models on disk: `.mlpackage` folders read and written, one noun for them and `.mlmodelc`.

A package is a `Manifest.json`, a protobuf `Model` and its weight files. `compiled.py` reads the
other form. Packages that we write have no clock, no random identifier and no map order in them:
the same model gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from sdbuild.errors import InvalidProgram, UnsupportedFormat
from sdbuild.mil.blob import BlobReader
from sdbuild.mil.program import Blob, Program
from sdbuild.mil.proto import Message, decode_program, encode_program, messages, serialize

MANIFEST_FILE = "Manifest.json"
MODEL_PATH = "@model_path"
WEIGHT_FILE = f"{MODEL_PATH}/weights/weight.bin"
_AUTHOR = "com.apple.CoreML"


@dataclass(frozen=True, kw_only=True)
class Model:
    """An ML Program with its description, and the folder that its weight files lie in.

    `description` is the `ModelDescription` message: features, metadata, flexible shapes.
    `root` is what `@model_path` stands for.
    """

    specification_version: int
    description: Message
    program: Program
    root: Path
    source: Path
    _readers: dict[str, BlobReader] = field(default_factory=dict, repr=False, compare=False)

    def reader(self, file: str) -> BlobReader:
        """The weight file that blobs call `file`, mapped once.

        Raises:
            InvalidProgram: the name leads out of the model's folder, or there is no such file.
        """
        if file not in self._readers:
            self._readers[file] = BlobReader(self.weight_path(file))
        return self._readers[file]

    def weight_path(self, file: str) -> Path:
        """Where the weight file that blobs call `file` lies.

        Raises:
            InvalidProgram: the name leads out of the model's folder.
        """
        return self.root / _inside(file, self.source)

    def blob(self, blob: Blob) -> memoryview:
        """The packed bytes of `blob`, mapped."""
        return self.reader(blob.file).data(blob.offset)

    @cached_property
    def inputs(self) -> Mapping[str, Message]:
        """The `FeatureDescription` of each input, by name."""
        return {feature.name: feature for feature in self.description.input}

    @cached_property
    def input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape that each multi-array input declares, by name."""
        return {n: tuple(f.type.multiArrayType.shape) for n, f in self.inputs.items()}

    @cached_property
    def outputs(self) -> Mapping[str, Message]:
        """The `FeatureDescription` of each output, by name."""
        return {feature.name: feature for feature in self.description.output}


def _inside(file: str, source: Path) -> PurePosixPath:
    path = PurePosixPath(file)
    if path.parts[:1] != (MODEL_PATH,) or ".." in path.parts or len(path.parts) < 2:
        raise InvalidProgram(
            f"{source}: weight file name {file!r}, expected one below {MODEL_PATH}/"
        )
    return path.relative_to(MODEL_PATH)


def read_package(path: Path) -> Model:
    """The model in an `.mlpackage` folder.

    Raises:
        InvalidProgram: the folder is not a package, or its protobuf is broken.
        UnsupportedFormat: the model is not an ML Program.
    """
    file = model_file(path)
    spec = messages("Model").Model()
    try:
        spec.ParseFromString(file.read_bytes())
    except Exception as error:  # protobuf's DecodeError: its module moves between versions
        raise InvalidProgram(f"{file}: not a Core ML model: {error}") from error
    kind = spec.WhichOneof("Type")
    if kind != "mlProgram":
        raise UnsupportedFormat(f"{path}: model type {kind or 'none'}, expected mlProgram")
    return Model(
        specification_version=spec.specificationVersion,
        description=spec.description,
        program=decode_program(spec.mlProgram),
        root=file.parent,
        source=path,
    )


def model_file(package: Path) -> Path:
    """The `.mlmodel` file of a package, by its manifest.

    Raises:
        InvalidProgram: there is no sound `Manifest.json`, or the file that it names is not there.
    """
    manifest = package / MANIFEST_FILE
    try:
        content = json.loads(manifest.read_text("utf-8"))
        relative = content["itemInfoEntries"][content["rootModelIdentifier"]]["path"]
    except FileNotFoundError:
        raise InvalidProgram(f"{package}: no {MANIFEST_FILE}, so not an .mlpackage") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidProgram(f"{manifest}: not a package manifest: {error!r}") from error
    file = package / "Data" / relative
    if not file.resolve().is_relative_to(package.resolve()) or not file.is_file():
        raise InvalidProgram(f"{manifest}: names {relative!r}, which is not a file of the package")
    return file


def write_package(
    path: Path, *, specification_version: int, description: Message, program: Program,
    weights: Path | None,
) -> None:
    """Writes an `.mlpackage` folder at `path`; `weights` is moved into it.

    All blobs of `program` must refer to `WEIGHT_FILE`.
    """
    root = path / "Data" / _AUTHOR
    root.mkdir(parents=True)
    spec = messages("Model").Model(specificationVersion=specification_version)
    spec.description.CopyFrom(description)
    spec.mlProgram.CopyFrom(encode_program(program))
    data = serialize(spec)
    (root / "model.mlmodel").write_bytes(data)
    items = {"model.mlmodel": "CoreML Model Specification"}
    if weights is not None:
        (root / "weights").mkdir()
        shutil.move(weights, root / "weights" / "weight.bin")
        items["weights"] = "CoreML Model Weights"
    (path / MANIFEST_FILE).write_text(_manifest(items, data), "utf-8")


def _manifest(items: Mapping[str, str], model: bytes) -> str:
    """The manifest, its identifiers derived from the bytes of the model."""
    seed = hashlib.sha256(model).hexdigest()
    identifiers = {
        name: str(uuid.uuid5(uuid.NAMESPACE_OID, f"{seed}/{name}")).upper() for name in items
    }
    entries = {
        identifiers[name]: {
            "author": _AUTHOR, "description": text, "name": name, "path": f"{_AUTHOR}/{name}",
        }
        for name, text in items.items()
    }
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": entries,
        "rootModelIdentifier": identifiers["model.mlmodel"],
    }
    return json.dumps(manifest, indent=4, sort_keys=True) + "\n"
