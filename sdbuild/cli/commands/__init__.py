"""The commands of `sdbuild`, one file each, found by its name (`_` is written `-`).

A command's module imports nothing heavy before it runs, and holds `command`: a function that does
it and gives the exit status (0 done, 1 something is wrong), with its options.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import click

from sdbuild.cli.options import Command, json_option, print_json, printed_lines, recipe_variables


def doit_command(
    name: str, meaning: str,
    check: Callable[[Sequence[str], Mapping[str, str]], None] = lambda arguments, words: None,
) -> click.Command:
    """Makes a command of one of doit's, which gets the arguments.

    Args:
        check: refuses arguments and variables that doit would take.
    """
    @click.command(name, cls=Command, help=meaning,
                   context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGS]...")
    @recipe_variables()
    @json_option
    def command(arguments: tuple[str, ...], words: dict[str, str], is_json: bool) -> int:
        from sdbuild.cli.dodo import run

        check(arguments, words)
        if not is_json:
            return run([name, *arguments], words)
        with printed_lines() as lines:
            status = run([name, *arguments], words)
        print_json(lines=lines)
        return status

    return command
