"""`sdbuild …`, the program. Its commands are in `sdbuild/cli/commands/`, one file each."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from sdbuild.base.errors import RecipeError, SDBuildError, StoreError
from sdbuild.base.garbage import skip_last_collection
from sdbuild.base.parsing import shown
from sdbuild.base.printable import any_locale, printed_safely
from sdbuild.base.suggestions import did_you_mean
from sdbuild.base.versions import NETWORKS, package_missing
from sdbuild.cli import commands
from sdbuild.cli.options import CONTEXT, print_json

SECTIONS = {
    "Build": (
        "build", "generate", "check", "report", "sweep", "contract", "why", "matrix", "export"),
    "Project": ("init", "recipes", "lock", "refresh", "doctor", "schema", "completion"),
    "Bundles and models": ("relink", "diff", "weight", "mil"),
    "Hub": ("publish", "pull", "reproduce"),
    "Apple's command lines": (
        "torch2coreml", "pipeline", "chunk", "mixed-bit-compression-pre-analysis",
        "mixed-bit-compression-apply", "activation-quantization", "multilingual-projection"),
    "Store": ("du", "gc", "verify", "history", "find", "push"),
    "Tasks": ("list", "info", "forget", "clean"),
}
"""The commands as the help text lists them; any other comes last."""

_DOIT = ("run", "ignore", "dumpdb", "strace", "tabcompletion", "reset-dep", "help")

skip_last_collection()

_ALSO = {"chunk_mlprogram": "chunk"}
"""Names of commands in Apple's package that differ from ours, for its flags."""


def names() -> list[str]:
    """Returns the commands, each found by its file (`_` is written `-`)."""
    found = {module.name.rstrip("_").replace("_", "-")
             for module in pkgutil.iter_modules(commands.__path__)}
    return sorted(found)


class _Commands(click.Group):
    """The commands, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Lists the commands."""
        return names()

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Imports a command."""
        if name not in names():
            return None
        module = name.replace("-", "_")
        module += "_" if module == "list" else ""
        return importlib.import_module(f"{commands.__name__}.{module}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command that the first argument names, or says what may be meant."""
        name = _ALSO.get(args[0], args[0].replace("_", "-"))
        if name in names():
            return super().resolve_command(ctx, [name, *args[1:]])
        name = args[0]
        if name in _DOIT:
            hint = "sdbuild --help lists the commands" if name == "help" else f"doit {name}"
        elif ":" in name:
            hint = f"sdbuild build {name}"
        else:
            hint = "sdbuild --help lists the commands"
        raise RecipeError(
            f"there is no command {shown(name)}{did_you_mean(name, names())}", hint=hint
        )

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the commands by section."""
        known = [name for section in SECTIONS.values() for name in section]
        rest = {"Other": tuple(name for name in names() if name not in known)}
        for section, listed in (SECTIONS | rest).items():
            found = [(name, self.get_command(ctx, name)) for name in listed]
            rows = [(name, each.get_short_help_str(64)) for name, each in found if each]
            if rows:
                with formatter.section(section):
                    formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command; the exit status: 0 done, 1 failed, 2 usage error."""
        try:
            _check_folder()
            return super().invoke(ctx)
        except SDBuildError as error:
            _report(error, ctx)
            return 2 if isinstance(error, RecipeError) else 1
        except BrokenPipeError:  # the reader has ended, such as `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            return 130
        except ModuleNotFoundError as error:  # of what a light install leaves out
            package = (error.name or "").partition(".")[0]
            if package not in NETWORKS:
                raise
            _report(package_missing(ctx.invoked_subcommand or "sdbuild", package), ctx)
            return 1
        except OSError as error:  # a file or folder that no reader or writer looked at first
            place = f"{error.filename}: " if error.filename else ""
            _report(StoreError(f"{place}{error.strerror or error}"), ctx)
            return 1


def _check_folder() -> None:
    """Makes sure that the current folder still exists, which nearly everything depends on.

    Raises:
        StoreError: it was deleted.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise StoreError("the current folder was deleted",
                         hint="change to a folder that exists: cd ~") from None


def _report(error: SDBuildError, ctx: click.Context) -> None:
    if ctx.params.get("debug"):
        traceback.print_exc()
    elif "--json" in ctx.obj:
        print_json(error={
            "type": type(error).__name__, "message": error.message, "hint": error.hint,
        })
    else:
        click.echo(f"ERROR: {error}", err=True)


def _version(ctx: click.Context, param: click.Parameter, is_asked: bool) -> None:
    if is_asked:
        from importlib import metadata

        try:
            click.echo(f"sdbuild {metadata.version('sdbuild')}")
        except metadata.PackageNotFoundError:
            click.echo("sdbuild, not installed")
        ctx.exit()


@click.group(cls=_Commands, context_settings=CONTEXT)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
              help="Show the version and exit.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Convert Stable Diffusion checkpoints to Core ML, with every step cached.

    sdbuild build makes the default recipe's bundle, and sdbuild generate an image with it. sdbuild
    COMMAND --help lists a command's variables.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program; the exit status."""
    from sdbuild.cli.log import logged

    any_locale()
    with printed_safely(), logged():
        return _run(list(sys.argv[1:] if arguments is None else arguments))


def _run(args: list[str]) -> int:
    try:
        status = cli.main(args or ["--help"], prog_name="sdbuild", standalone_mode=False, obj=args)
    except click.NoSuchOption as error:
        known = [name for param in error.ctx.command.params for name in param.opts] \
            if error.ctx else []
        click.echo(f"ERROR: unknown option {error.option_name}"
                   f"{did_you_mean(error.option_name, known)}\n\nhint: "
                   f"{error.ctx.command_path if error.ctx else 'sdbuild'} --help", err=True)
        return 2
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "sdbuild"
        click.echo(f"ERROR: {error.format_message()}\n\nhint: {path} --help", err=True)
        return 2
    except click.Abort:
        return 130
    return status if isinstance(status, int) else 0
