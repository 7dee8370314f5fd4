"""`python -m sdbuild mil …`: what is in a model, what is wrong with it, and edits of it.

Only the standard library is imported before a command runs. What each command prints as JSON is
described in `docs/mil.md`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdbuild.errors import MILError

if TYPE_CHECKING:
    from sdbuild.mil.package import Model
    from sdbuild.mil.packed import TensorReport
    from sdbuild.mil.program import Function
    from sdbuild.mil.proto import Message

Run = Callable[[argparse.Namespace], int]


def add_mil(parser: argparse.ArgumentParser) -> None:
    """Adds the commands of `mil` to its parser."""
    mil = parser.add_subparsers(required=True, metavar="COMMAND")
    show = _command(mil, "show", _show, "what a model is: features, functions, weights")
    show.add_argument("--text", action="store_true", help="the program as MIL text")
    _command(mil, "ops", _ops, "its operations, and whether the portable executor has them")
    _command(mil, "weights", _weights, "its blobs: what uses them, types, bits, bytes, offsets")
    _command(mil, "verify", _verify, "reads everything and says what is wrong")
    diff = _command(mil, "diff", _diff, "what two models differ in, by name")
    diff.add_argument("other", type=Path, metavar="OTHER", help="the model to compare with")
    _add_run(mil)
    _add_compress(mil, "palettize", _palettize, "weights as indices into a table")
    _add_compress(mil, "quantize", _quantize, "weights as small integers and scales")
    _add_compress(mil, "sparsify", _sparsify, "small weights as zeros that take no bytes")
    _add_chunk(mil)
    compile_ = _command(mil, "compile", _compile, "a package as the .mlmodelc of Apple's compiler")
    compile_.add_argument("destination", type=Path, metavar="DESTINATION")
    compile_.add_argument("--name", help="the model's name (default: that of the package)")


def _command(
    mil: argparse._SubParsersAction, name: str, run: Run, meaning: str
) -> argparse.ArgumentParser:
    command = mil.add_parser(name, help=meaning, description=meaning)
    command.add_argument("path", type=Path, metavar="PATH", help="an .mlpackage or .mlmodelc")
    command.add_argument("--json", action="store_true", help="JSON instead of tables")
    command.set_defaults(run=_guarded(run))
    return command


def _add_run(mil: argparse._SubParsersAction) -> None:
    run = _command(mil, "run", _run, "executes it, on random inputs where none are given")
    run.add_argument("--input", action="append", default=[], type=_pair, metavar="NAME=FILE.npy",
                     help="an input from a file; may be repeated")
    run.add_argument("--seed", type=int, default=0, help="of the random inputs (default: 0)")
    run.add_argument("--function", help="the function to run (default: main)")
    run.add_argument("--weight-bytes", type=int, metavar="N",
                     help="decoded weights that are kept; others are decoded at each use")
    run.add_argument("--out", type=Path, help="the folder for the outputs, one .npy each")


def _add_compress(
    mil: argparse._SubParsersAction, name: str, run: Run, meaning: str
) -> None:
    command = _command(mil, name, run, meaning)
    command.add_argument("destination", type=Path, metavar="DESTINATION")
    if name != "sparsify":
        command.add_argument("--bits", type=int, required=True, help="of an index or an integer")
    command.add_argument("--min-elements", type=int, default=2048,
                         help="smaller constants stay as they are (default: 2048)")
    command.add_argument("--skip", action="append", default=[], metavar="PATTERN",
                         help="names of constants that stay as they are; may be repeated")
    command.add_argument("--skip-type", action="append", default=[], metavar="TYPE",
                         help="operations whose constants stay as they are; may be repeated")
    command.add_argument("--workers", type=int, default=1, help="threads (default: 1)")
    if name == "palettize":
        command.add_argument("--mixed", action="append", default=[], type=_bits_pair,
                             metavar="PATTERN=BITS", help="other bits for some; may be repeated")
        command.add_argument("--group-size", type=int, help="a table for that many channels")
        command.add_argument("--per-channel-scale", action="store_true",
                             help="divide each channel by its greatest magnitude first")
    elif name == "quantize":
        command.add_argument("--block-size", type=int, help="a scale for that many channels")
    else:
        command.add_argument("--sparsity", type=float, help="the share that becomes zero, 0 to 1")
        command.add_argument("--threshold", type=float, help="magnitudes up to it become zero")
        command.add_argument("--min-sparsity", type=float, default=0.5, help="with --threshold: "
                             "tensors with a smaller share stay as they are (default: 0.5)")


def _add_chunk(mil: argparse._SubParsersAction) -> None:
    command = _command(mil, "chunk", _chunk, "several packages that run in a row")
    command.add_argument("destinations", type=Path, nargs="+", metavar="DESTINATION",
                         help="one for each chunk, or with --one-package a single one")
    command.add_argument("--one-package", type=int, metavar="CHUNKS",
                         help="write that many chunks as one pipeline")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r}, expected NAME=VALUE")
    return name, value


def _bits_pair(text: str) -> tuple[str, int]:
    name, value = _pair(text)
    if not value.isdecimal():
        raise argparse.ArgumentTypeError(f"{value!r}, expected a number of bits")
    return name, int(value)


def _guarded(run: Run) -> Run:
    """`run`, with errors of the file system told as our own."""

    def guarded(options: argparse.Namespace) -> int:
        try:
            return run(options)
        except OSError as error:
            raise MILError(str(error)) from error

    return guarded


def _print(
    options: argparse.Namespace, key: str, rows: Sequence[object], columns: Sequence[str]
) -> None:
    """Prints rows that are dataclasses or mappings as a table, or as JSON under `key`."""
    from dataclasses import asdict

    from sdbuild.mil.tables import format_json, format_table

    plain = [row if isinstance(row, Mapping) else asdict(row) for row in rows]
    print(format_json({key: plain}) if options.json else format_table(plain, columns))


# looking


def _show(options: argparse.Namespace) -> int:
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
    from sdbuild.mil.survey import operation_counts, type_text

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
    lines += ["", format_table(shown["features"], ("kind", "name", "type", "meaning")), ""]
    for function in shown["functions"]:
        counts = ", ".join(f"{count} {name}" for name, count in function["operations"].items())
        name = f"function {function['name']} ({function['opset']})"
        lines.append(printable(f"{name}: {counts or 'nothing'}"))
    lines.append(f"weights: {weights['blobs']} blobs, {format_bytes(weights['bytes'])}")
    return "\n".join(lines)


def _ops(options: argparse.Namespace) -> int:
    from collections import Counter

    from sdbuild.mil import ops
    from sdbuild.mil.survey import blocks, operation_counts, read_models

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


def _weights(options: argparse.Namespace) -> int:
    from sdbuild.mil.survey import read_models, weights

    rows = [weight for model in read_models(options.path) for weight in weights(model)]
    _print(options, "weights", rows,
           ("name", "operation", "argument", "dtype", "shape", "bits", "size_bytes", "offset"))
    return 0


def _verify(options: argparse.Namespace) -> int:
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


def _diff(options: argparse.Namespace) -> int:
    from sdbuild.mil.diff import differences
    from sdbuild.mil.survey import read_models

    before, after = read_models(options.path), read_models(options.other)
    if len(before) != len(after):
        raise MILError(f"{options.path} has {len(before)} programs, {options.other} {len(after)}")
    found = [d for pair in zip(before, after, strict=True) for d in differences(*pair)]
    if found or options.json:
        _print(options, "differences", found, ("part", "name", "before", "after"))
    return 1 if found else 0


# running


def _run(options: argparse.Namespace) -> int:
    from sdbuild.mil.execute import first_nonfinite
    from sdbuild.mil.run import load_inputs, predict, save_outputs, summary
    from sdbuild.mil.survey import read_models

    results = list(predict(read_models(options.path), load_inputs(dict(options.input)),
                           function=options.function, seed=options.seed,
                           weight_bytes=options.weight_bytes))
    rows = [row for result in results for row in summary(result.outputs)]
    if options.out is not None:
        save_outputs(options.out, {k: v for result in results for k, v in result.outputs.items()})
    _print(options, "outputs", rows, ("name", "dtype", "shape", "min", "max", "nan", "inf"))
    for result in results:
        if not options.json and any(row["nan"] or row["inf"] for row in summary(result.outputs)):
            print(first_nonfinite(result.model, result.inputs, function=options.function))
            break
    return 0


# edits


def _palettize(options: argparse.Namespace) -> int:
    from sdbuild.mil.palettize import palettize

    return _packed(options, palettize(
        options.path, options.destination, nbits=options.bits, min_elements=options.min_elements,
        skip=options.skip, skip_types=options.skip_type, mixed=dict(options.mixed),
        group_size=options.group_size, is_scaled=options.per_channel_scale,
        workers=options.workers,
    ))


def _quantize(options: argparse.Namespace) -> int:
    from sdbuild.mil.quantize import quantize

    return _packed(options, quantize(
        options.path, options.destination, nbits=options.bits, min_elements=options.min_elements,
        skip=options.skip, skip_types=options.skip_type, block_size=options.block_size,
        workers=options.workers,
    ))


def _sparsify(options: argparse.Namespace) -> int:
    from sdbuild.mil.sparsify import sparsify

    return _packed(options, sparsify(
        options.path, options.destination, sparsity=options.sparsity, threshold=options.threshold,
        min_sparsity=options.min_sparsity, min_elements=options.min_elements, skip=options.skip,
        skip_types=options.skip_type, workers=options.workers,
    ))


def _packed(options: argparse.Namespace, reports: Iterable[TensorReport]) -> int:
    _print(options, "tensors", list(reports), (
        "name", "bits", "groups", "bytes_before", "bytes_after", "rms_error", "max_error", "snr_db",
    ))
    return 0


def _chunk(options: argparse.Namespace) -> int:
    from sdbuild.mil.chunk import chunk
    from sdbuild.mil.pipeline import chunk_into_pipeline

    if options.one_package is None:
        report = chunk(options.path, options.destinations)
    elif len(options.destinations) == 1:
        report = chunk_into_pipeline(
            options.path, options.destinations[0], options.one_package)
    else:
        raise MILError(f"{len(options.destinations)} destinations, expected one for one package")
    rows = [
        {"path": None if options.one_package else str(part.path), "inputs": part.inputs,
         "outputs": part.outputs, "operations": part.operations, "blob_bytes": part.blob_bytes}
        for part in report.chunks
    ]
    _print(options, "chunks", rows, ("operations", "blob_bytes", "inputs", "outputs"))
    return 0


def _compile(options: argparse.Namespace) -> int:
    from sdbuild.mil.compile import compile_package

    compile_package(options.path, options.destination, name=options.name)
    if options.json:
        _print(options, "compiled", [{"path": str(options.destination)}], ())
    else:
        print(options.destination)
    return 0
