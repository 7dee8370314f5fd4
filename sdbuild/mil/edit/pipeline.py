"""Pipelines: ML Programs in one package that run in a row, as coremltools makes them.

What one program gives, a later one takes by name. Each has weight files of its own in the package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from sdbuild.base.errors import InvalidProgram, MILError, UnsupportedFormat
from sdbuild.mil.edit.chunk import ChunkReport, chunk_model
from sdbuild.mil.edit.rewrite import refuse_stray_blobs
from sdbuild.mil.files.destination import RESULT, put, refuse_existing, written_atomically
from sdbuild.mil.files.package import (
    MODEL_PATH,
    Model,
    extra_of,
    model_file,
    model_of,
    read_spec,
    write_spec,
)
from sdbuild.mil.files.validate import read_sound
from sdbuild.mil.ir.encode import encode_program
from sdbuild.mil.ir.program import Blob, Operation
from sdbuild.mil.ir.proto import Message, messages, serialize
from sdbuild.mil.ir.traverse import moved, rebuilt, weight_files


@dataclass(frozen=True, kw_only=True)
class ModelPipeline:
    """ML Programs in the order in which they run; `names` are those of the models, or nothing.

    `description` is that of the whole. `extra` is what else the `Model` message holds.
    """

    specification_version: int
    description: Message
    models: tuple[Model, ...]
    names: tuple[str, ...]
    source: Path
    extra: bytes = b""


def is_pipeline(path: Path) -> bool:
    """Whether the package at `path` holds a pipeline.

    Raises:
        InvalidProgram: the folder is not a package, or its protobuf is broken.
    """
    return read_spec(model_file(path)).WhichOneof("Type") == "pipeline"


def read_pipeline(path: Path) -> ModelPipeline:
    """Returns the pipeline in an `.mlpackage` folder.

    Raises:
        InvalidProgram: the folder is not a package, or one of its programs is broken.
        UnsupportedFormat: it is no pipeline, or not all of its models are ML Programs.
    """
    file = model_file(path)
    spec = read_spec(file)
    kind = spec.WhichOneof("Type")
    if kind != "pipeline":
        raise UnsupportedFormat(f"{path}: model type {kind or 'none'}, expected pipeline")
    names = tuple(spec.pipeline.names)
    if names and len(names) != len(spec.pipeline.models):
        found = f"{len(names)} names for {len(spec.pipeline.models)} models"
        raise InvalidProgram(f"{path}: {found}")
    return ModelPipeline(
        specification_version=spec.specificationVersion,
        description=spec.description,
        models=tuple(model_of(child, file.parent, path) for child in spec.pipeline.models),
        names=names,
        source=path,
        extra=_extra(spec),
    )


def _extra(spec: Message) -> bytes:
    """Returns the rest of a pipeline's message, with the unknown fields of `Pipeline`."""
    rest = type(spec).FromString(extra_of(spec))
    unknown = type(spec.pipeline)()
    unknown.CopyFrom(spec.pipeline)
    unknown.ClearField("models")
    unknown.ClearField("names")
    if unknown.ByteSize():
        rest.pipeline.CopyFrom(unknown)
    return serialize(rest)


def join(sources: Sequence[Path], destination: Path, *, is_linked: bool = False) -> None:
    """Writes a pipeline of packages that run in a row; it appears whole, or not at all.

    An input that no earlier package gives is one of the pipeline, and so is an output that no
    later package takes. With `is_linked`, weight files are hard links to those of the packages,
    where the file system can, which then must never be written into.

    Raises:
        MILError: there is something at `destination`, it lies in a package, or there are fewer than
            two packages.
        InvalidProgram: a source is not a sound package.
    """
    if len(sources) < 2:
        raise MILError(f"{destination}: a pipeline of {len(sources)}, expected two or more")
    models = tuple(map(read_sound, sources))
    write_pipeline(ModelPipeline(
        specification_version=max(model.specification_version for model in models),
        description=_description([model.description for model in models]),
        models=models, names=(), source=destination,
    ), destination, is_linked=is_linked)


def chunk_into_pipeline(source: Path, destination: Path, count: int) -> ChunkReport:
    """Cuts the package `source` into `count` programs, written as one pipeline.

    The chunks of the report name places that are gone; what they hold is in the pipeline.

    Raises:
        MILError: as `chunk` and `join`, or the program has fewer operations than `count`.
        UnsupportedFormat: as `chunk`.
    """
    refuse_existing([source], [destination])
    model = read_sound(source)
    most = len(model.program.main.block.operations)
    if not 2 <= count <= most:
        raise MILError(f"{source}: {count} chunks, expected two or more, and at most {most}, as"
                       " many as there are operations")
    destination.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}.") as folder:
        places = [Path(folder) / f"{number}.mlpackage" for number in range(1, count + 1)]
        report = chunk_model(model, places)
        join(places, destination, is_linked=True)
    return report


def _description(parts: Sequence[Message]) -> Message:
    """Returns the features that enter and leave the row, and the first part's metadata.

    Source:
        coremltools 9.0, `make_pipeline` in `coremltools/models/utils.py` (BSD-3-Clause), which
        leaves metadata out.
    """
    whole = messages("Model").ModelDescription()
    whole.metadata.CopyFrom(parts[0].metadata)
    available: set[str] = set()
    for part in parts:
        whole.input.extend(f for f in part.input if f.name not in available)
        whole.state.extend(part.state)
        available.update(feature.name for feature in (*part.input, *part.output))
    taken: set[str] = set()
    for part in reversed(parts):
        whole.output.extend(f for f in part.output if f.name not in taken)
        taken.update(feature.name for feature in part.input)
    return whole


def write_pipeline(
    pipeline: ModelPipeline, destination: Path, *, is_linked: bool = False
) -> None:
    """Writes the package of a pipeline; it appears whole, or not at all.

    `is_linked` is that of `join`.

    Raises:
        MILError: there is something at `destination`, or it lies in a package of the models.
        UnsupportedFormat: a program cannot be written without loss.
    """
    refuse_existing([model.source for model in pipeline.models], [destination])
    spec = messages("Model").Model(specificationVersion=pipeline.specification_version)
    spec.description.CopyFrom(pipeline.description)
    spec.pipeline.names.extend(pipeline.names)
    files: dict[str, Path] = {}
    for number, model in enumerate(pipeline.models):
        refuse_stray_blobs(model)
        names = _file_names(model, number)
        files.update((name, model.weight_file(file)) for file, name in names.items())
        spec.pipeline.models.append(_child(model, names))
    spec.MergeFromString(pipeline.extra)
    with written_atomically(destination) as folder:
        for name, path in files.items():
            put(path, folder / name, is_link=is_linked)
        write_spec(folder / RESULT, spec, {name: folder / name for name in files})


def _file_names(model: Model, number: int) -> dict[str, str]:
    """Returns each weight file that a model refers to, and its name in the pipeline's package."""
    return {
        file: f"{number}-weight.bin" if position == 0 else f"{number}-weight-{position}.bin"
        for position, file in enumerate(weight_files(model.program))
    }


def _child(model: Model, names: Mapping[str, str]) -> Message:
    """Returns the message of one model, its blobs in the files of the pipeline."""

    def place(blob: Blob) -> Blob:
        return Blob(f"{MODEL_PATH}/weights/{names[blob.file]}", blob.offset)

    def change(operation: Operation) -> Operation:
        return moved(operation, place)

    functions = {
        name: replace(f, blocks={o: rebuilt(b, change) for o, b in f.blocks.items()})
        for name, f in model.program.functions.items()
    }
    spec = messages("Model").Model(specificationVersion=model.specification_version)
    spec.description.CopyFrom(model.description)
    spec.mlProgram.CopyFrom(encode_program(replace(model.program, functions=functions)))
    spec.MergeFromString(model.extra)
    return spec
