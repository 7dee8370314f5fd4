"""Unite: programs of several packages as functions of one, with each of their weights once.

So coremltools' `save_multifunction` does it; here no weight is decoded and none is kept in memory.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sdbuild.base.errors import MILError, UnsupportedFormat
from sdbuild.mil.edit.rewrite import refuse_stray_blobs
from sdbuild.mil.files.blob import BlobWriter
from sdbuild.mil.files.destination import RESULT, refuse_existing, written_atomically
from sdbuild.mil.files.package import WEIGHT_FILE, Model, write_package
from sdbuild.mil.files.validate import read_sound
from sdbuild.mil.ir.program import Blob, Function
from sdbuild.mil.ir.proto import Message, messages
from sdbuild.mil.ir.traverse import moved, rebuilt

FIRST_SPECIFICATION = 9
"""iOS 18: the first specification whose models may have several functions."""


def unite(sources: Mapping[str, Path], destination: Path) -> None:
    """Writes a package with the program of each of `sources` as a function of that name.

    The first of them is the default function. Its blobs are written as they are, those of others
    only where none of equal bytes is there, so that programs of the same weights share a file that
    equals the first one's.

    Before:
        a.mlpackage: main(x: fp16 [1, 8])    b.mlpackage: main(x: fp16 [1, 16])
    After:
        a(x: fp16 [1, 8]) ; b(x: fp16 [1, 16])

    Raises:
        MILError: there are fewer than two sources, or `destination` exists or lies in one of them.
        InvalidProgram: a source is not a sound package.
        UnsupportedFormat: a source has several functions or is for a system before iOS 18, or a
            blob lies where edits do not look.
    """
    if len(sources) < 2:
        raise MILError(f"{destination}: {len(sources)} packages, expected two or more")
    refuse_existing(list(sources.values()), [destination])
    models = {name: read_sound(path) for name, path in sorted(sources.items())}
    for model in models.values():
        _check(model)
    first = models[next(iter(sources))]
    with written_atomically(destination) as folder:
        with _Shared(folder / "weight.bin") as weights:
            order = [next(iter(sources)), *models]
            made = {name: weights.carried(models[name]) for name in dict.fromkeys(order)}
        write_package(
            folder / RESULT,
            specification_version=max(m.specification_version for m in models.values()),
            description=_description(models, first, next(iter(sources))),
            program=replace(first.program, functions={name: made[name] for name in models}),
            extra=first.extra, weights=None if weights.is_empty else weights.path,
        )


def _check(model: Model) -> None:
    refuse_stray_blobs(model)
    if len(model.program.functions) != 1 or len(model.program.main.blocks) != 1:
        raise UnsupportedFormat(f"{model.source}: several functions or opsets, expected one")
    if model.specification_version < FIRST_SPECIFICATION:
        raise UnsupportedFormat(
            f"{model.source}: specification version {model.specification_version}, expected "
            f"{FIRST_SPECIFICATION}, as functions came with iOS 18", hint="convert for iOS 18")


class _Shared:
    """The weight file of several models; a context manager.

    Of blobs with equal bytes in one model, such as biases of zeros, the first is the first of the
    other models too, and so on: an edit of all of them writes what it would write of one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = BlobWriter(path)
        self._written: dict[tuple[str, int, str], list[Blob]] = {}

    def __enter__(self) -> _Shared:
        self._writer.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.__exit__(*error)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was written."""
        return not self._written

    def carried(self, model: Model) -> Function:
        """Returns the one function of a model, its blobs in this file."""
        is_first = self.is_empty
        copies: dict[Blob, Blob] = {}
        used: Counter[tuple[str, int, str]] = Counter()

        def copy(blob: Blob) -> Blob:
            if blob not in copies:
                record, data = model.reader(blob.file).record(blob.offset), model.blob(blob)
                key = (record.dtype, record.padding_bits, hashlib.sha256(data).hexdigest())
                written = self._written.setdefault(key, [])
                if is_first or not written:
                    offset = self._writer.write(record.dtype, data, record.padding_bits)
                    written.append(Blob(WEIGHT_FILE, offset))
                copies[blob] = written[min(used[key], len(written) - 1)]
                used[key] += 1
            return copies[blob]

        main = model.program.main
        block = rebuilt(main.block, lambda operation: moved(operation, copy))
        return replace(main, blocks={main.opset: block})


def _description(models: Mapping[str, Model], first: Model, default: str) -> Message:
    """Returns the description of all functions, with the metadata of the first.

    Source:
        coremltools 9.0, `save_multifunction` in `coremltools/models/utils.py` (BSD-3-Clause), which
        leaves metadata out.
    """
    whole = messages("Model").ModelDescription(defaultFunctionName=default)
    whole.metadata.CopyFrom(first.description.metadata)
    for name, model in models.items():
        whole.functions.append(_described_as(name, model.described()))
    return whole


def _described_as(name: str, features: Message) -> Message:
    """Returns the description of a function: the features of a model's, under a name."""
    found = messages("Model").FunctionDescription(
        name=name, predictedFeatureName=features.predictedFeatureName,
        predictedProbabilitiesName=features.predictedProbabilitiesName)
    for port in ("input", "output", "state"):
        getattr(found, port).extend(getattr(features, port))
    return found
