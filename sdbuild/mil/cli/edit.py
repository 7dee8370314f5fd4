"""The commands of `sdbuild mil` that write models.

Only the standard library is imported before a command runs. What each command prints as JSON is
described in `docs/mil.md`.
"""

from __future__ import annotations

import argparse
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

from sdbuild.mil.cli.tables import print_rows

if TYPE_CHECKING:
    from sdbuild.mil.compress.packed_weights import TensorReport


def palettize(options: argparse.Namespace) -> int:
    """Writes the package with palettized weights."""
    from sdbuild.mil.compress.palettize import palettize

    return _packed(options, palettize(
        options.path, options.destination, nbits=options.bits, min_elements=options.min_elements,
        skip=options.skip, skip_types=options.skip_type, mixed=options.mixed,
        group_size=options.group_size, is_scaled=options.per_channel_scale,
        workers=options.workers,
    ), f"one table: their channels cannot be parted into groups of {options.group_size}")


def quantize(options: argparse.Namespace) -> int:
    """Writes the package with quantized weights."""
    from sdbuild.mil.compress.activations import chosen, read_layer_inputs
    from sdbuild.mil.compress.quantize import quantize

    if options.min_snr and options.activations is None:
        options.refuse("argument --min-snr: only with --activations")
    found = chosen(read_layer_inputs(options.activations), options.min_snr) \
        if options.activations else []
    return _packed(options, quantize(
        options.path, options.destination, nbits=options.bits, min_elements=options.min_elements,
        skip=options.skip, skip_types=options.skip_type, block_size=options.block_size,
        activations={item.layer: item.largest for item in found},
        workers=options.workers,
    ), f"no blocks: their input channels cannot be parted into blocks of {options.block_size}")


def sparsify(options: argparse.Namespace) -> int:
    """Writes the package with pruned weights."""
    from sdbuild.mil.compress.sparsify import MIN_SPARSITY, sparsify

    if options.min_sparsity is None:
        options.min_sparsity = MIN_SPARSITY
    elif options.threshold is None:
        options.refuse("argument --min-sparsity: only with --threshold")
    return _packed(options, sparsify(
        options.path, options.destination, sparsity=options.sparsity, threshold=options.threshold,
        min_sparsity=options.min_sparsity, min_elements=options.min_elements, skip=options.skip,
        skip_types=options.skip_type, workers=options.workers,
    ))


def _packed(options: argparse.Namespace, reports: Sequence[TensorReport], whole: str = "") -> int:
    """Prints the reports, how many weights have `whole` in place of groups or blocks, and how many
    were left as they were."""
    if reports or options.json:
        print_rows(options, "tensors", reports, (
            "name", "bits", "groups", "bytes_before", "bytes_after", "rms_error", "max_error",
            "snr_db",
        ))
    if options.json:
        return 0
    if count := sum(report.is_whole for report in reports):
        print(f"{count} of {len(reports)} weights have {whole}")
    if count := sum(report.bytes_after > report.bytes_before for report in reports):
        print(f"{count} of {len(reports)} weights take more bytes than before")
    if left := _left(options, {report.name for report in reports}):
        print(left)
    return 0


def _left(options: argparse.Namespace, eligible: Container[str]) -> str:
    """Reports how many weights an edit left as they were; empty if it changed all."""
    from sdbuild.mil.inspect.summary import read_models, weights

    is_eligible: dict[tuple[str, int], bool] = {}
    for weight in (weight for model in read_models(options.path) for weight in weights(model)):
        place = (weight.file, weight.offset)
        is_eligible[place] = is_eligible.get(place, False) or weight.name in eligible
    left = sum(not each for each in is_eligible.values())
    rules = [f"floats of more than {options.min_elements} elements and one axis"]
    if options.skip or options.skip_type:
        rules.append("that are not to be skipped")
    if getattr(options, "threshold", None) is not None:
        rules.append(f"of which a share of {options.min_sparsity:g} would be zero")
    text = (f"{left} of {len(is_eligible)} weights stay as they are" if left < len(is_eligible)
            else f"{options.destination}: none of the {left} weights was changed")
    return f"{text}; eligible are {', '.join(rules)}" if left else ""


def chunk(options: argparse.Namespace) -> int:
    """Writes the chunks."""
    from sdbuild.mil.edit.chunk import chunk
    from sdbuild.mil.edit.pipeline import chunk_into_pipeline

    if options.one_package is None:
        if len(options.destinations) < 2:
            options.refuse("one DESTINATION, expected one for each chunk, or --one-package CHUNKS")
        report = chunk(options.path, options.destinations)
    else:
        if len(options.destinations) > 1:
            options.refuse("argument --one-package: several DESTINATIONs, expected one")
        report = chunk_into_pipeline(
            options.path, options.destinations[0], options.one_package)
    rows = [
        {"path": None if options.one_package else str(part.path), "inputs": part.inputs,
         "outputs": part.outputs, "operations": part.operations, "blob_bytes": part.blob_bytes}
        for part in report.chunks
    ]
    print_rows(options, "chunks", rows, ("operations", "blob_bytes", "inputs", "outputs"))
    return 0


def compile_(options: argparse.Namespace) -> int:
    """Writes the compiled model."""
    from sdbuild.mil.compile.compile import compile_package

    compile_package(options.path, options.destination, name=options.name)
    if options.json:
        print_rows(options, "compiled", [{"path": str(options.destination)}], ())
    else:
        print(options.destination)
    return 0
