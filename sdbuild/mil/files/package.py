"""Models on disk: `.mlpackage` folders read and written, one noun for them and `.mlmodelc`.

A package is a `Manifest.json`, a protobuf `Model` and its weight files. `compiled.py` reads the
other form. Packages that we write have no clock, no random identifier and no map order in them:
the same model gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from sdbuild.base.errors import InvalidProgram, UnsupportedFormat
from sdbuild.base.parsing import Malformed, json_object
from sdbuild.mil.files.blob import BlobReader, Blobs
from sdbuild.mil.files.suffixes import ROOT
from sdbuild.mil.ir.decode import decode_program, located
from sdbuild.mil.ir.encode import encode_program
from sdbuild.mil.ir.program import Blob, Function, Program
from sdbuild.mil.ir.proto import Message, messages, serialize

MANIFEST_FILE = "Manifest.json"
MODEL_PATH = "@model_path"
WEIGHT_FILE = f"{MODEL_PATH}/weights/weight.bin"
SPEC_FILE = "model.mlmodel"
_AUTHOR = ROOT.removeprefix("Data/")
_LARGEST_MANIFEST_BYTES = 1 << 24
_LARGEST_MODEL_BYTES = (1 << 31) - 1
"""Protobuf's limit on the size of one message."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """An ML Program with its description, and the folder that its weight files lie in.

    `description` is the `ModelDescription` message: features, metadata, flexible shapes.
    `root` is what `@model_path` stands for. `extra` is what else the `Model` message holds.
    """

    specification_version: int
    description: Message
    program: Program
    root: Path
    source: Path
    extra: bytes = b""
    _readers: dict[str, Blobs] = field(default_factory=dict, repr=False, compare=False)

    def reader(self, file: str) -> Blobs:
        """Returns the weight file that blobs call `file`, mapped once.

        Raises:
            InvalidProgram: the name leads out of the model's folder, or there is no such file.
        """
        if file not in self._readers:
            self._readers[file] = BlobReader(self.weight_path(file))
        return self._readers[file]

    def weight_file(self, file: str) -> Path:
        """Returns the path of the weight file that blobs call `file`, checked to be one.

        Raises:
            InvalidProgram: it is none, or `weight_path` refuses it.
        """
        self.reader(file)
        return self.weight_path(file)

    def weight_path(self, file: str) -> Path:
        """Returns where the weight file that blobs call `file` lies.

        Raises:
            InvalidProgram: the name, or a link that it names, leads out of the model's folder.
        """
        path = self.root / _inside(file, self.source)
        if not _is_below(path, self.source):
            raise InvalidProgram(
                f"{self.source}: weight file {file!r} is a link that leads out of the folder",
                hint="Copy the folder with its links followed: cp -rL",
            )
        return path

    def blob(self, blob: Blob) -> memoryview:
        """Returns the packed bytes of `blob`, mapped."""
        return self.reader(blob.file).data(blob.offset)

    def described(self, function: str | None = None) -> Message:
        """Returns the description of a function's features: a `FunctionDescription`, or that of the
        model if it has one function. None is the default function.

        Raises:
            InvalidProgram: it is not described.
        """
        if not self.description.functions:
            return self.description
        wanted = self.description.defaultFunctionName if function is None else function
        for features in self.description.functions:
            if features.name == wanted:
                return features
        names = ", ".join(features.name for features in self.description.functions)
        raise InvalidProgram(f"{self.source}: the function {wanted!r} is not described; "
                             f"found: {names}")

    def function(self, name: str | None = None) -> Function:
        """Returns a function of the program, the default one if `name` is None.

        Raises:
            InvalidProgram: there is none.
        """
        name = name or self.description.defaultFunctionName
        if not name:
            return self.program.main
        if name not in self.program.functions:
            raise InvalidProgram(f"{self.source}: no function {name!r}; "
                                 f"found: {', '.join(self.program.functions)}")
        return self.program.functions[name]

    @cached_property
    def inputs(self) -> Mapping[str, Message]:
        """The `FeatureDescription` of each input of the default function, by name."""
        return {feature.name: feature for feature in self.described().input}

    @cached_property
    def input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape that each multi-array input of the default function declares, by name."""
        return input_shapes(self.described())

    @cached_property
    def outputs(self) -> Mapping[str, Message]:
        """The `FeatureDescription` of each output of the default function, by name."""
        return {feature.name: feature for feature in self.described().output}


def input_shapes(features: Message) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each multi-array input in the description of a function."""
    return {f.name: tuple(f.type.multiArrayType.shape) for f in features.input}


def _inside(file: str, source: Path) -> PurePosixPath:
    path = PurePosixPath(file)
    has_escape = ".." in path.parts or "\0" in file
    if path.parts[:1] != (MODEL_PATH,) or has_escape or len(path.parts) < 2:
        raise InvalidProgram(
            f"{source}: weight file name {file!r}, expected one below {MODEL_PATH}/"
        )
    return path.relative_to(MODEL_PATH)


def _is_below(path: Path, folder: Path) -> bool:
    """Whether `path` lies in `folder` when all links are followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def read_package(path: Path, weights: Blobs | None = None) -> Model:
    """Returns the model in an `.mlpackage` folder.

    Args:
        weights: the blobs of `WEIGHT_FILE`, where that is not in the folder.

    Raises:
        InvalidProgram: the folder is not a package, or its protobuf is broken.
        UnsupportedFormat: the model is not an ML Program.
    """
    file = model_file(path)
    model = model_of(read_spec(file), file.parent, path)
    return model if weights is None else replace(model, _readers={WEIGHT_FILE: weights})


def model_of(spec: Message, root: Path, source: Path) -> Model:
    """Returns the ML Program in a `Model` message.

    Raises:
        InvalidProgram: the program breaks the format; says where.
        UnsupportedFormat: the model is not an ML Program.
    """
    kind = spec.WhichOneof("Type")
    if kind != "mlProgram":
        hint = "Of a pipeline, edit and compile the packages that it was made of."
        raise UnsupportedFormat(f"{source}: model type {kind or 'none'}, expected mlProgram",
                                hint=hint if kind == "pipeline" else "")
    with located(str(source)):
        program = decode_program(spec.mlProgram)
    return Model(
        specification_version=spec.specificationVersion,
        description=spec.description,
        program=program,
        root=root,
        source=source,
        extra=extra_of(spec),
    )


def extra_of(spec: Message) -> bytes:
    """Returns what a `Model` message holds beside its version, its description and the model
    itself."""
    rest = type(spec)()
    rest.CopyFrom(spec)
    for name in ("specificationVersion", "description", spec.WhichOneof("Type")):
        rest.ClearField(name)
    return serialize(rest)


def read_spec(file: Path) -> Message:
    """Returns the `Model` message in an `.mlmodel` file.

    Raises:
        InvalidProgram: it is none, or larger than a message can be.
    """
    size = file.stat().st_size
    if size > _LARGEST_MODEL_BYTES:
        raise InvalidProgram(f"{file}: {size} bytes, expected at most {_LARGEST_MODEL_BYTES}")
    spec = messages("Model").Model()
    try:
        spec.ParseFromString(file.read_bytes())
    except Exception as error:  # protobuf's DecodeError: its module moves between versions
        raise InvalidProgram(f"{file}: not a Core ML model: {error}") from error
    return spec


def model_file(package: Path) -> Path:
    """Returns the `.mlmodel` file of a package, by its manifest.

    Raises:
        InvalidProgram: there is no sound `Manifest.json`, or the file that it names is not there.
    """
    manifest = package / MANIFEST_FILE
    relative = _root_item(manifest)
    file = package / "Data" / relative
    try:
        is_sound = _is_below(file, package) and file.is_file()
    except (OSError, ValueError):  # names that no file system takes
        is_sound = False
    if not is_sound:
        raise InvalidProgram(f"{manifest}: names {relative!r}, which is not a file of the package")
    return file


def _root_item(manifest: Path) -> str:
    """Returns the path that a manifest gives to the model."""
    if not os.path.lexists(manifest.parent):
        raise InvalidProgram(f"{manifest.parent}: there is no such file or folder")
    if manifest.exists() and not manifest.is_file():  # a pipe would be waited for
        raise InvalidProgram(f"{manifest}: not a file")
    try:
        size = manifest.stat().st_size
        if size > _LARGEST_MANIFEST_BYTES:
            raise ValueError(f"{size} bytes, expected at most {_LARGEST_MANIFEST_BYTES}")
        content = json_object(manifest.read_bytes(), MANIFEST_FILE, Malformed,
                              most_bytes=_LARGEST_MANIFEST_BYTES)
        return str(content["itemInfoEntries"][content["rootModelIdentifier"]]["path"])
    except FileNotFoundError:
        raise InvalidProgram(
            f"{manifest.parent}: no {MANIFEST_FILE}, so not an .mlpackage") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InvalidProgram(f"{manifest}: not a package manifest: {error!r}") from error


def write_package(
    path: Path, *, specification_version: int, description: Message, program: Program,
    weights: Path | None, extra: bytes = b"", is_without_weights: bool = False,
) -> None:
    """Writes an `.mlpackage` folder at `path`; `weights` is moved into it.

    All blobs of `program` must refer to `WEIGHT_FILE`. `extra` is that of a `Model`. With
    `is_without_weights` the manifest names the weights, and their file is not written.

    Raises:
        UnsupportedFormat: the program cannot be written without loss.
    """
    spec = messages("Model").Model(specificationVersion=specification_version)
    spec.description.CopyFrom(description)
    spec.mlProgram.CopyFrom(encode_program(program))
    spec.MergeFromString(extra)
    has_none = weights is None and not is_without_weights
    write_spec(path, spec, {} if has_none else {"weight.bin": weights})


def write_spec(path: Path, spec: Message, weights: Mapping[str, Path | None]) -> None:
    """Writes an `.mlpackage` folder of a `Model` message; the files of `weights` are moved into
    it, where there are any."""
    root = path / ROOT
    root.mkdir(parents=True)
    data = serialize(spec)
    (root / SPEC_FILE).write_bytes(data)
    items = {SPEC_FILE: "CoreML Model Specification"}
    if weights:
        (root / "weights").mkdir()
        items["weights"] = "CoreML Model Weights"
    for name, file in weights.items():
        if file is not None:
            shutil.move(file, root / "weights" / name)
    (path / MANIFEST_FILE).write_text(_manifest(items, data), "utf-8")


def _manifest(items: Mapping[str, str], model: bytes) -> str:
    """Returns the manifest, its identifiers derived from the bytes of the model."""
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
        "rootModelIdentifier": identifiers[SPEC_FILE],
    }
    return json.dumps(manifest, indent=4, sort_keys=True) + "\n"
