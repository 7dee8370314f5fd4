"""What the commands of `python -m sdbuild mil` do.

Only the standard library is imported before a command runs. What each command prints as JSON is
described in `docs/mil.md`.
"""

from __future__ import annotations

import argparse
from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from sdbuild.errors import MILError

if TYPE_CHECKING:
    from sdbuild.mil.package import Model
    from sdbuild.mil.packed import TensorReport
    from sdbuild.mil.program import Function
    from sdbuild.mil.proto import Message

_Item = TypeVar("_Item")


def _print(
    options: argparse.Namespace, key: str, rows: Sequence[object], columns: Sequence[str]
) -> None:
    """Prints rows that are dataclasses or mappings as a table, or as JSON under `key`."""
    from dataclasses import asdict

    from sdbuild.mil.tables import format_json, format_table

    plain = [row if isinstance(row, Mapping) else asdict(row) for row in rows]
    print(format_json({key: plain}) if options.json else format_table(plain, columns))


# looking


def show(options: argparse.Namespace) -> int:
    """Tells what a model is, or prints its program."""
    from sdbuild.mil.survey import read_models
    from sdbuild.mil.tables import format_json
    from sdbuild.mil.text import dialect_of, format_program

    models = read_models(options.path)
    if options.text:
        for model in models:
            print(format_program(model.program, dialect_of(model.specification_version)))
        return 0
    shown = [_shown(model) for model in models]
    if options.json:
        print(format_json({"models": shown}))
    else:
        print("\n\n".join(map(_show_text, shown)))
    return 0


def _shown(model: Model) -> dict:
    """What `show` tells of one model."""
    from sdbuild.mil.survey import weights

    found = {(w.file, w.offset): w.size_bytes for w in weights(model)}
    metadata = model.description.metadata
    described = model.description.functions or [model.description]
    return {
        "path": str(model.source),
        "specification_version": model.specification_version,
        "description": metadata.shortDescription,
        "author": metadata.author,
        "license": metadata.license,
        "version": metadata.versionString,
        "user_defined": dict(sorted(metadata.userDefined.items())),
        "features": [row for features in described for row in _features(features)],
        "functions": [_function(*item) for item in model.program.functions.items()],
        "weights": {"blobs": len(found), "bytes": sum(found.values())},
    }


def _features(features: Message) -> list[dict]:
    from sdbuild.mil.survey import feature_text

    groups = {"input": features.input, "output": features.output, "state": features.state}
    return [
        {"function": getattr(features, "name", ""), "kind": kind, "name": feature.name,
         "type": feature_text(feature), "meaning": feature.shortDescription}
        for kind, group in groups.items() for feature in group
    ]


def _function(name: str, function: Function) -> dict:
    from sdbuild.mil.program import type_text
    from sdbuild.mil.survey import operation_counts

    return {
        "name": name,
        "opset": function.opset,
        "inputs": {item.name: type_text(item.type) for item in function.inputs},
        "outputs": list(function.block.outputs),
        "operations": operation_counts(function.block),
    }


def _show_text(shown: Mapping) -> str:
    from sdbuild.mil.tables import format_bytes, format_table, printable

    weights = shown["weights"]
    lines = [f"{shown['path']}: ML Program, specification version "
             f"{shown['specification_version']}"]
    words = {key: shown[key] for key in ("description", "author", "license", "version")}
    for key, text in (words | shown["user_defined"]).items():
        if text:
            lines.append(f"  {key}: {text}")
    lines = [printable(line) for line in lines]
    of = ("function",) if len(shown["functions"]) > 1 else ()
    columns = (*of, "kind", "name", "type", "meaning")
    lines += ["", format_table(shown["features"], columns), ""]
    for function in shown["functions"]:
        counts = ", ".join(f"{count} {name}" for name, count in function["operations"].items())
        name = f"function {function['name']} ({function['opset']})"
        lines.append(printable(f"{name}: {counts or 'nothing'}"))
    lines.append(f"weights: {weights['blobs']} blobs, {format_bytes(weights['bytes'])}")
    return "\n".join(lines)


def ops(options: argparse.Namespace) -> int:
    """Lists the types of operations."""
    from collections import Counter

    from sdbuild.mil import ops
    from sdbuild.mil.sound import blocks
    from sdbuild.mil.survey import operation_counts, read_models

    counts: Counter[str] = Counter()
    for model in read_models(options.path):
        for _, _, block in blocks(model):
            counts.update(operation_counts(block))
    rows = [
        {"operation": name, "count": count,
         "supported": name == "const" or ops.find(name) is not None}
        for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    _print(options, "operations", rows, ("operation", "count", "supported"))
    return 0


def weights(options: argparse.Namespace) -> int:
    """Lists the blobs."""
    from sdbuild.mil.survey import read_models, weights

    rows = [weight for model in read_models(options.path) for weight in weights(model)]
    of = ("function",) if len({weight.function for weight in rows}) > 1 else ()
    _print(options, "weights", rows,
           (*of, "name", "operation", "argument", "dtype", "shape", "bits", "size_bytes", "offset"))
    return 0


def verify(options: argparse.Namespace) -> int:
    """Tells what is wrong; 1 if something is."""
    from sdbuild.mil.tables import printable
    from sdbuild.mil.verify import verify

    problems = verify(options.path)
    if options.json:
        _print(options, "problems", problems, ())
    for problem in () if options.json else problems:
        kind = "error" if problem.is_error else "note"
        print(printable(f"{kind}: {problem.where}: {problem.problem}"))
    if not problems and not options.json:
        print(f"{options.path}: sound")
    return 1 if any(problem.is_error for problem in problems) else 0


def diff(options: argparse.Namespace) -> int:
    """Tells what two models differ in; 1 if they do."""
    from sdbuild.mil.diff import COMPILER_ATTRIBUTE, differences, one_is_compiled
    from sdbuild.mil.survey import read_models

    before, after = read_models(options.path), read_models(options.other)
    if len(before) != len(after):
        raise MILError(f"{options.path} has {len(before)} programs, {options.other} {len(after)}")
    found = [d for pair in zip(before, after, strict=True) for d in differences(*pair)]
    if any(one_is_compiled(*pair) for pair in zip(before, after, strict=True)) and not options.json:
        print(f"attribute {COMPILER_ATTRIBUTE}: not compared, as the compiler adds to it")
    if found or options.json:
        _print(options, "differences", found, ("part", "name", "before", "after"))
    return 1 if found else 0


# running


def run(options: argparse.Namespace) -> int:
    """Executes, and tells of the outputs."""
    from sdbuild.mil.destination import refuse_file
    from sdbuild.mil.run import load_inputs, predict, save_outputs, summary, where_not_finite
    from sdbuild.mil.survey import read_models
    from sdbuild.mil.tables import printable

    if options.out is not None:
        refuse_file(options.out)
    results = list(predict(read_models(options.path), load_inputs(_once('--input', options.input)),
                           function=options.function, seed=options.seed,
                           weight_bytes=options.weight_bytes))
    summaries = [summary(result.outputs) for result in results]
    if options.out is not None:
        save_outputs(options.out, {k: v for result in results for k, v in result.outputs.items()})
    _print(options, "outputs", [row for rows in summaries for row in rows],
           ("name", "dtype", "shape", "min", "max", "nan", "inf"))
    for result, rows in zip(results, summaries, strict=True):
        if not options.json and any(row["nan"] or row["inf"] for row in rows):
            print(printable(where_not_finite(result)))
            break
    return 0


# edits


def _once(option: str, pairs: Sequence[tuple[str, _Item]]) -> dict[str, _Item]:
    """The pairs of an option that may be repeated, though not for the same name."""
    found: dict[str, _Item] = {}
    for name, value in pairs:
        if name in found:
            raise MILError(f"{option} {name}: given twice, expected once")
        found[name] = value
    return found


def palettize(options: argparse.Namespace) -> int:
    """Writes the package with palettized weights."""
    from sdbuild.mil.palettize import palettize

    return _packed(options, palettize(
        options.path, options.destination, nbits=options.bits, min_elements=options.min_elements,
        skip=options.skip, skip_types=options.skip_type, mixed=_once('--mixed', options.mixed),
        group_size=options.group_size, is_scaled=options.per_channel_scale,
        workers=options.workers,
    ), f"one table: their channels cannot be parted into groups of {options.group_size}")


def quantize(options: argparse.Namespace) -> int:
    """Writes the package with quantized weights."""
    from sdbuild.mil.quantize import quantize

    return _packed(options, quantize(
        options.path, options.destination, nbits=options.bits, min_elements=options.min_elements,
        skip=options.skip, skip_types=options.skip_type, block_size=options.block_size,
        workers=options.workers,
    ), f"no blocks: their input channels cannot be parted into blocks of {options.block_size}")


def sparsify(options: argparse.Namespace) -> int:
    """Writes the package with pruned weights."""
    from sdbuild.mil.sparsify import MIN_SPARSITY, sparsify

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
    """Tells of each tensor, of those that stayed whole what `whole` says they have, and of the
    weights that were left alone how many they are."""
    if reports or options.json:
        _print(options, "tensors", reports, (
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


def _left(options: argparse.Namespace, taken: Container[str]) -> str:
    """How many weights an edit left alone, and which it takes; nothing if it took all."""
    from sdbuild.mil.survey import read_models, weights

    is_taken: dict[tuple[str, int], bool] = {}
    for weight in (weight for model in read_models(options.path) for weight in weights(model)):
        place = (weight.file, weight.offset)
        is_taken[place] = is_taken.get(place, False) or weight.name in taken
    left = sum(not each for each in is_taken.values())
    rules = [f"floats of more than {options.min_elements} elements and one axis"]
    if options.skip or options.skip_type:
        rules.append("that are not to be skipped")
    if getattr(options, "threshold", None) is not None:
        rules.append(f"of which a share of {options.min_sparsity:g} would be zero")
    told = (f"{left} of {len(is_taken)} weights stay as they are" if left < len(is_taken)
            else f"{options.destination}: none of the {left} weights was changed")
    return f"{told}; taken are {', '.join(rules)}" if left else ""


def chunk(options: argparse.Namespace) -> int:
    """Writes the chunks."""
    from sdbuild.mil.chunk import chunk
    from sdbuild.mil.pipeline import chunk_into_pipeline

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
    _print(options, "chunks", rows, ("operations", "blob_bytes", "inputs", "outputs"))
    return 0


def compile_(options: argparse.Namespace) -> int:
    """Writes the compiled model."""
    from sdbuild.mil.compile import compile_package

    compile_package(options.path, options.destination, name=options.name)
    if options.json:
        _print(options, "compiled", [{"path": str(options.destination)}], ())
    else:
        print(options.destination)
    return 0
