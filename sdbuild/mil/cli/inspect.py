"""The commands of `sdbuild mil` that inspect models, and run them.

Only the standard library is imported before a command runs. What each command prints as JSON is
described in `docs/mil.md`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sdbuild.base.errors import MILError
from sdbuild.mil.cli.tables import print_rows

if TYPE_CHECKING:
    from sdbuild.mil.files.package import Model
    from sdbuild.mil.ir.program import Function
    from sdbuild.mil.ir.proto import Message


def show(options: argparse.Namespace) -> int:
    """Reports what a model is, or prints its program."""
    from sdbuild.mil.cli.tables import format_json
    from sdbuild.mil.inspect.summary import read_models
    from sdbuild.mil.text.printer import dialect_of, format_program

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
    """Returns what `show` tells of one model."""
    from sdbuild.mil.inspect.summary import weights

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
    from sdbuild.mil.inspect.summary import feature_text

    groups = {"input": features.input, "output": features.output, "state": features.state}
    return [
        {"function": getattr(features, "name", ""), "kind": kind, "name": feature.name,
         "type": feature_text(feature), "meaning": feature.shortDescription}
        for kind, group in groups.items() for feature in group
    ]


def _function(name: str, function: Function) -> dict:
    from sdbuild.mil.inspect.summary import operation_counts
    from sdbuild.mil.ir.program import type_text

    return {
        "name": name,
        "opset": function.opset,
        "inputs": {item.name: type_text(item.type) for item in function.inputs},
        "outputs": list(function.block.outputs),
        "operations": operation_counts(function.block),
    }


def _show_text(shown: Mapping) -> str:
    from sdbuild.mil.cli.tables import format_bytes, format_table, printable

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

    from sdbuild.mil.execute import ops
    from sdbuild.mil.files.validate import blocks
    from sdbuild.mil.inspect.summary import operation_counts, read_models

    counts: Counter[str] = Counter()
    for model in read_models(options.path):
        for _, _, block in blocks(model):
            counts.update(operation_counts(block))
    rows = [
        {"operation": name, "count": count,
         "supported": name == "const" or ops.find(name) is not None}
        for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    print_rows(options, "operations", rows, ("operation", "count", "supported"))
    return 0


def weights(options: argparse.Namespace) -> int:
    """Lists the blobs."""
    from sdbuild.mil.inspect.summary import read_models, weights

    rows = [weight for model in read_models(options.path) for weight in weights(model)]
    of = ("function",) if len({weight.function for weight in rows}) > 1 else ()
    print_rows(options, "weights", rows,
           (*of, "name", "operation", "argument", "dtype", "shape", "bits", "size_bytes", "offset"))
    return 0


def verify(options: argparse.Namespace) -> int:
    """Reports what is wrong; 1 if something is."""
    from sdbuild.mil.cli.tables import printable
    from sdbuild.mil.inspect.verify import verify

    problems = verify(options.path)
    if options.json:
        print_rows(options, "problems", problems, ())
    for problem in () if options.json else problems:
        kind = "error" if problem.is_error else "note"
        print(printable(f"{kind}: {problem.where}: {problem.problem}"))
    if not problems and not options.json:
        print(f"{options.path}: valid")
    return 1 if any(problem.is_error for problem in problems) else 0


def diff(options: argparse.Namespace) -> int:
    """Reports what two models differ in; 1 if they do."""
    from sdbuild.mil.inspect.diff import COMPILER_ATTRIBUTE, differences, one_is_compiled
    from sdbuild.mil.inspect.summary import read_models

    before, after = read_models(options.path), read_models(options.other)
    if len(before) != len(after):
        raise MILError(f"{options.path} has {len(before)} programs, {options.other} {len(after)}")
    found = [d for pair in zip(before, after, strict=True) for d in differences(*pair)]
    if any(one_is_compiled(*pair) for pair in zip(before, after, strict=True)) and not options.json:
        print(f"attribute {COMPILER_ATTRIBUTE}: not compared, as the compiler adds to it")
    if found or options.json:
        print_rows(options, "differences", found, ("part", "name", "before", "after"))
    return 1 if found else 0


def observe(options: argparse.Namespace) -> int:
    """Writes the ranges of what layers are given, and tells what rounding it loses."""
    from sdbuild.mil.cli.run import load_samples
    from sdbuild.mil.compress.activations import write_layer_inputs
    from sdbuild.mil.execute.layer_inputs import observed
    from sdbuild.mil.files.destination import refuse_existing
    from sdbuild.mil.files.read import read_model

    refuse_existing([options.path], [options.destination])
    samples = load_samples(options.samples)
    found = observed(read_model(options.path), [[sample] for sample in samples],
                     function=options.function, weight_bytes=options.weight_bytes)
    write_layer_inputs(options.destination, found)
    print_rows(options, "layers", found, ("layer", "value", "largest", "work", "snr_db"))
    return 0


def run(options: argparse.Namespace) -> int:
    """Executes, and tells of the outputs."""
    from sdbuild.mil.cli.run import load_inputs, predict, save_outputs, summary, where_not_finite
    from sdbuild.mil.cli.tables import printable
    from sdbuild.mil.files.destination import refuse_file
    from sdbuild.mil.inspect.summary import read_models

    if options.out is not None:
        refuse_file(options.out)
    results = list(predict(read_models(options.path), load_inputs(options.input),
                           function=options.function, seed=options.seed,
                           weight_bytes=options.weight_bytes))
    summaries = [summary(result.outputs) for result in results]
    if options.out is not None:
        save_outputs(options.out, {k: v for result in results for k, v in result.outputs.items()})
    print_rows(options, "outputs", [row for rows in summaries for row in rows],
           ("name", "dtype", "shape", "min", "max", "nan", "inf"))
    for result, rows in zip(results, summaries, strict=True):
        if not options.json and any(row["nan"] or row["inf"] for row in rows):
            print(printable(where_not_finite(result)))
            break
    return 0
