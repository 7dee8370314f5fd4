"""`python -m sdbuild …`, for what does not fit doit."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from sdbuild.errors import RecipeError, SDBuildError
from sdbuild.fields import DRAW_FIELDS, VARIABLES, did_you_mean, parse
from sdbuild.mil.cli import add_mil


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; the exit status: 0 done, 1 failed, 2 asked for wrongly."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except SDBuildError as error:
        if options.debug:
            traceback.print_exc()
        else:
            print(f"ERROR: {error}", file=sys.stderr)
        return 2 if isinstance(error, RecipeError) else 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sdbuild",
        description="Beside doit: draw from any bundle, check it, explain a build, edit models.",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_generate(commands)
    _add_why(commands)
    _add_contract(commands)
    _add_doctor(commands)
    add_mil(commands)
    return parser


def _add_generate(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("generate", help="draw pictures from a finished bundle")
    command.add_argument("bundle", type=Path, help="the folder of a finished bundle")
    for field in DRAW_FIELDS:
        command.add_argument(f"--{field.name}", help=field.meaning)
    command.add_argument("--out", help="the PNG to write (default: images/<name>.png)")
    command.add_argument("--report", type=Path, help="where timings go, as JSON")
    command.add_argument("--predictor", default="auto", help="auto, coreml or portable")
    command.set_defaults(run=_generate)


def _generate(options: argparse.Namespace) -> int:
    from sdbuild.recipe import Request
    from sdbuild.runtime.bundle import load_bundle
    from sdbuild.runtime.generate import generate
    from sdbuild.runtime.predictor import PREDICTORS

    if options.predictor not in PREDICTORS:
        raise RecipeError(
            f"--predictor is {options.predictor!r}, expected one of {', '.join(PREDICTORS)}"
            f"{did_you_mean(options.predictor, PREDICTORS)}"
        )
    bundle = load_bundle(options.bundle)
    chosen = {f.name: getattr(options, f.name) for f in DRAW_FIELDS}
    words = bundle.defaults | {k: v for k, v in chosen.items() if v is not None}
    request = Request(**{f.name: parse(f, words[f.name], "on the command line")
                         for f in DRAW_FIELDS})
    wanted = f"images/{bundle.name}.png" if options.out is None else options.out
    out = Path(parse(VARIABLES["out"], wanted, "on the command line"))
    for path in generate(bundle, request, out, options.report, options.predictor):
        print(path)
    return 0


def _add_why(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("why", help="what a task would run, and because of what")
    command.add_argument("task", help="build, or a step such as palettize:unet")
    command.add_argument("variables", nargs="*", metavar="name=value", help="as for doit")
    command.set_defaults(run=_why)


def _why(options: argparse.Namespace) -> int:
    from sdbuild.why import why

    words = {}
    for word in options.variables:
        name, equals, value = word.partition("=")
        if not equals:
            raise RecipeError(f"{word!r}: expected name=value")
        words[name] = value
    print(why(options.task, words))
    return 0


def _add_contract(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("contract", help="what hosts would trip over in a bundle")
    command.add_argument("bundle", type=Path, help="the folder of a bundle, of any maker")
    command.add_argument("--json", action="store_true", help="JSON instead of text")
    command.set_defaults(run=_contract)


def _contract(options: argparse.Namespace) -> int:
    from sdbuild.runtime.contract import ERROR, RULES, told, violations

    found = violations(options.bundle)
    errors = sum(violation.level == ERROR for violation in found)
    if options.json:
        print(json.dumps([asdict(violation) for violation in found], indent=2))
    else:
        counts = f"{len(RULES)} rules: {errors} errors, {len(found) - errors} warnings"
        print(told(found), counts, sep="\n" if found else "")
    return 1 if errors else 0


def _add_doctor(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("doctor", help="what this machine can build and run")
    command.add_argument("--cache", type=Path, help="the store (default: cache/ of the project)")
    command.add_argument("--json", action="store_true", help="JSON instead of text")
    command.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from sdbuild.doctor import can_build, examine, told
    from sdbuild.settings import PROJECT

    found = examine(options.cache or PROJECT / "cache")
    if options.json:
        print(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        print(told(found))
    return 0 if can_build(found) else 1
