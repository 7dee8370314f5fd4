"""The common part of edits of ML Programs: a new package of an old one's blobs, each copied once.

An edit walks a program in order and gives back another; the blobs that the new program uses are
streamed into a new weight file as the walk meets them. `chunk.py` and those of
`compress/compress.py` are edits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sdbuild.base.errors import UnsupportedFormat
from sdbuild.mil.files.blob import BlobWriter
from sdbuild.mil.files.destination import RESULT, refuse_existing, written_atomically
from sdbuild.mil.files.package import WEIGHT_FILE, Model, write_package
from sdbuild.mil.files.validate import refuse_contradictions
from sdbuild.mil.ir.program import Blob, Operation, Program
from sdbuild.mil.ir.proto import Message
from sdbuild.mil.ir.traverse import all_attributes, moved, rebuilt, value_blobs


class Weights:
    """The weight file of a package that is being written from `model`; a context manager."""

    def __init__(self, model: Model, path: Path) -> None:
        self.path = path
        self._model = model
        self._writer = BlobWriter(path)
        self._copies: dict[Blob, Blob] = {}
        self.is_empty = True

    def __enter__(self) -> Weights:
        self._writer.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.__exit__(*error)

    def append(self, dtype: str, data: bytes | memoryview, padding_bits: int = 0) -> Blob:
        """Writes a new blob of packed bytes."""
        self.is_empty = False
        return Blob(WEIGHT_FILE, self._writer.write(dtype, data, padding_bits))

    def copy(self, blob: Blob) -> Blob:
        """Returns the blob of the new file with the bytes of `blob`, written when first asked
        for."""
        if blob not in self._copies:
            record = self._model.reader(blob.file).record(blob.offset)
            data = self._model.blob(blob)
            self._copies[blob] = self.append(record.dtype, data, record.padding_bits)
        return self._copies[blob]

    def carry(self, operation: Operation) -> Operation:
        """`operation`, its own blobs copied; `rebuilt` goes into its blocks."""
        return moved(operation, self.copy)


Edit = Callable[[Weights], tuple[Program, Message]]
"""Gives the new program and description; writes the blobs that the program uses."""


def write_edited(model: Model, destination: Path, edit: Edit) -> None:
    """Writes the package that `edit` makes of `model`; it appears whole, or not at all.

    Raises:
        MILError: there is something at `destination`, or it lies in the package of `model`.
        UnsupportedFormat: a blob lies where edits do not look.
    """
    refuse_stray_blobs(model)
    refuse_existing([model.source], [destination])
    with written_atomically(destination) as folder:
        with Weights(model, folder / "weight.bin") as weights:
            program, description = edit(weights)
        write_package(
            folder / RESULT, specification_version=model.specification_version,
            description=description, program=program, extra=model.extra,
            weights=None if weights.is_empty else weights.path,
        )


def write_same(model: Model, destination: Path) -> None:
    """Writes the package of a model from either of its forms, as edits write it: its blobs in the
    order of the program, and identifiers that its bytes decide.

    Raises:
        InvalidProgram: the program contradicts itself.
        UnsupportedFormat: a blob lies where edits do not look.
    """
    refuse_contradictions(model)

    def edit(weights: Weights) -> tuple[Program, Message]:
        functions = {
            name: replace(function, blocks={
                opset: rebuilt(block, weights.carry)
                for opset, block in function.blocks.items()})
            for name, function in model.program.functions.items()}
        return replace(model.program, functions=functions), model.description

    write_edited(model, destination, edit)


def refuse_stray_blobs(model: Model) -> None:
    """Refuses blobs in attributes of the program, a function or a block: no edit moves them.

    Raises:
        UnsupportedFormat: there is one; names the attribute.
    """
    for place, attributes in all_attributes(model.program):
        for name, value in attributes.items():
            if any(value_blobs(value)):
                raise UnsupportedFormat(
                    f"{model.source}: the attribute {name} of {place} is in a weight file,"
                    " which edits do not move")
