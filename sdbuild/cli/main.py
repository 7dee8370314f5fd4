"""`python -m sdbuild …`, for what does not fit doit. The commands are in `sdbuild/cli/commands/`."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from sdbuild.base.errors import RecipeError, SDBuildError
from sdbuild.base.printable import printed_safely
from sdbuild.cli import commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; the exit status: 0 done, 1 failed, 2 asked for wrongly."""
    with printed_safely():
        return _run(_parsed(arguments))


def _run(options: argparse.Namespace) -> int:
    try:
        return options.run(options)
    except SDBuildError as error:
        _tell(error, options)
        return 2 if isinstance(error, RecipeError) else 1
    except BrokenPipeError:  # whoever reads has had enough, such as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _tell(error: SDBuildError, options: argparse.Namespace) -> None:
    if options.debug:
        traceback.print_exc()
    elif getattr(options, "json", False):
        commands.print_json(error={
            "type": type(error).__name__, "message": error.message, "hint": error.hint,
        })
    else:
        print(f"ERROR: {error}", file=sys.stderr)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; words such as `quant=4` may also stand behind an option such as `--json`,
    where argparse looks for no more of them.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and (not hasattr(options, "words") or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.words = [*options.words, *rest]
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sdbuild",
        description="Beside doit: draw from any bundle, check it, explain a build, edit models.",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    each = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, module in commands.modules():
        command = each.add_parser(name, help=module.HELP, description=module.HELP)
        module.add(command)
        if hasattr(module, "run"):
            command.set_defaults(run=module.run)
    return parser
