"""`mil …`: commands for single models. They are `mil`'s own, in `sdbuild/mil/cli/main.py`."""

from __future__ import annotations

import argparse

import click


@click.command("mil", add_help_option=False, context_settings={
    "ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="COMMAND [ARGS]...")
def command(words: tuple[str, ...]) -> int:
    """Inspect, verify, compare, run and edit ML Programs."""
    from sdbuild.mil.cli.main import add_mil

    parser = argparse.ArgumentParser(
        prog="sdbuild mil", description="Inspect, verify, compare, run and edit ML Programs.")
    add_mil(parser)
    options = parser.parse_args(words)
    return options.run(options)
