"""Verify: everything in a model is read, and all problems are reported at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from sdbuild.base.errors import MILError
from sdbuild.base.filenames import contents
from sdbuild.mil.files.blob import BlobReader
from sdbuild.mil.files.package import Model
from sdbuild.mil.files.validate import Problem, blocks, contradictions, misdescribed
from sdbuild.mil.inspect.summary import read_models
from sdbuild.mil.ir.program import Block, Function, StateType
from sdbuild.mil.ir.traverse import program_blobs, uses, walk


def verify(path: Path) -> tuple[Problem, ...]:
    """Returns what is wrong with the package or compiled model at `path`; nothing, if it is
    sound."""
    try:
        models = read_models(path)
    except MILError as error:
        return (Problem(where=str(path), problem=error.message.removeprefix(f"{path}: ")),)
    found = [problem for model in models for problem in _model(model)]
    return (*found, *_files(models))


def _model(model: Model) -> Iterator[Problem]:
    yield from contradictions(model)
    for name, function, block in blocks(model):
        yield from _dead(f"function {name}", function, block)
    yield from misdescribed(model)


def _dead(where: str, function: Function, block: Block) -> Iterator[Problem]:
    """Operations whose results nobody uses; those that change a state have their own use."""
    states = {item.name for item in function.inputs if isinstance(item.type, StateType)}
    used = {name for operation in block.operations for name in uses(operation)}
    used.update(block.outputs)
    for operation in walk(block):
        outputs = [out.name for out in operation.outputs]
        if outputs and used.isdisjoint(outputs) and states.isdisjoint(operation.references()):
            yield Problem(where=f"{where}: {operation.type} {operation.name}",
                          problem="nothing uses its results")


# weight files


def _files(models: Iterable[Model]) -> Iterator[Problem]:
    """Weight files that are broken, and blobs that no program refers to."""
    used: dict[Path, set[int]] = {}
    for model in models:
        weights = model.root / "weights"
        for path in contents(weights, ".bin") if weights.is_dir() else ():
            used.setdefault(path, set())
        for file, offsets in _references(model).items():
            try:
                used.setdefault(model.weight_path(file), set()).update(offsets)
            except MILError as error:
                yield Problem(where=f"weight file {file!r}", problem=error.message)
    for path, offsets in sorted(used.items()):
        yield from _file(path, offsets)


def _references(model: Model) -> dict[str, set[int]]:
    """Returns the offsets of all blobs that the program refers to, by file."""
    found: dict[str, set[int]] = {}
    for blob in program_blobs(model.program):
        found.setdefault(blob.file, set()).add(blob.offset)
    return found


def _file(file: Path, used: set[int]) -> Iterator[Problem]:
    try:
        reader = BlobReader(file)
        for record in reader.records():
            if record.offset not in used:
                yield Problem(where=f"{file}: blob at offset {record.offset}", is_error=False,
                              problem=f"nothing refers to its {record.size_bytes} bytes")
            used.discard(record.offset)
    except MILError as error:
        yield Problem(where="weight file", problem=error.message)
        return
    for offset in sorted(used):
        yield Problem(where=f"{file}: blob at offset {offset}",
                      problem="is referred to, but is none of the file's blobs in a row")
