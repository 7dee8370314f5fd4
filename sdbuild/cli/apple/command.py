"""A program of Apple's package as a command of ours, which leaves its arguments to argparse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from sdbuild.base.errors import RecipeError
from sdbuild.cli.apple.flags import Given, Program
from sdbuild.cli.apple.programs import FLAGS
from sdbuild.cli.options import check_typography

_HERE = "on the command line: "


class ProgramCommand(click.Command):
    """A command whose arguments a program reads."""

    def __init__(self, program: Program, run: Callable[[Given], int]) -> None:
        super().__init__(program.command, help=run.__doc__, add_help_option=False)
        self._program = program
        self._run = run

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keeps the arguments, or shows what they may be."""
        if any(arg in ("-h", "--help") for arg in args):
            click.echo(self._program.help())
            ctx.exit()
        ctx.args = args
        return args

    def invoke(self, ctx: click.Context) -> Any:
        """Reads the arguments and runs the command.

        Raises:
            RecipeError: a value is not allowed; names the flag, where the recipe has another word.
        """
        for arg in ctx.args:
            check_typography(arg)
        given = self._program.read(ctx.args)
        try:
            return self._run(given)
        except RecipeError as error:
            field = str(error.facts.get("field", ""))
            flag = FLAGS.get(field)
            if flag is None or field in given.words:
                raise
            is_of_field = error.message.startswith(_HERE)  # the hint describes the recipe's field
            raise RecipeError(f"{flag}: {error.message.removeprefix(_HERE)}",
                              hint=self._program.hint if is_of_field else error.hint) from error


def as_program(program: Program) -> Callable[[Callable[[Given], int]], ProgramCommand]:
    """Makes a command of a function that takes what a program's flags say."""
    def decorate(function: Callable[[Given], int]) -> ProgramCommand:
        return ProgramCommand(program, function)
    return decorate
