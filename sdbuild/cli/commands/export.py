"""`export`: lays any step's artifact out, such as an `.mlpackage` for Xcode."""

from __future__ import annotations

import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdbuild.base.errors import RecipeError, StoreError
from sdbuild.cli.options import OutsidePath, as_command, json_option, print_json, recipe_variables

if TYPE_CHECKING:
    from sdbuild.store import Record

_OTHER = "choose another PATH"


@as_command()
@click.argument("step")
@click.argument("path", type=OutsidePath())
@click.option("--link", "is_linked", is_flag=True,
              help="Link to the files of the store, which must not be changed.")
@recipe_variables()
@json_option
def command(
    step: str, path: Path, is_linked: bool, words: dict[str, str], is_json: bool
) -> int:
    """Copy a step's artifact to PATH, which must not exist.

    STEP is a step such as convert:unet; it is made if needed. Of an artifact that holds a single
    .mlpackage, PATH becomes that package if its name ends so, and else a folder with it.
    """
    from sdbuild.base.suggestions import did_you_mean
    from sdbuild.cli.api import run
    from sdbuild.cli.format import as_json
    from sdbuild.cli.reporter import Before
    from sdbuild.engine.build import Builder
    from sdbuild.recipe.settings import settings

    if path.exists() or path.is_symlink():
        raise StoreError(f"{path}: already exists", hint="choose another PATH, or remove it")
    builder = Builder.of(settings(words))
    if step not in builder.plan.steps:
        raise RecipeError(f"there is no step {step!r}{did_you_mean(step, builder.plan.steps)}",
                          hint=f"the steps are: {', '.join(builder.plan.steps)}")
    with redirect_stdout(sys.stderr if is_json else sys.stdout):
        built = run(words, (step,), 1, Before())
    if is_json and built.error is not None:
        raise built.error
    if built.status:
        return built.status

    def lay_out(record: Record) -> Record:
        part = _only_entry(record, path)
        if is_linked:
            builder.store.checkout(record, path, part, _OTHER)
            return record
        with builder.store.workspace(f"export-{record.key}") as work:
            _copy(builder.store.checkout(record, work / "out", part), path)
        return record

    record = builder.deliver(step, lay_out)
    if is_json:
        print_json(path=str(path), artifact=as_json(record, builder.store))
    else:
        click.echo(path)
    return 0


def _only_entry(record: Record, path: Path) -> str:
    """Returns the only file or folder of an artifact, if its name ends as the path's does; else
    empty."""
    names = {entry.path.partition("/")[0] for entry in record.tree}
    suffixes = {Path(name).suffix for name in names}
    return names.pop() if len(names) == 1 and suffixes == {path.suffix} != {""} else ""


def _copy(source: Path, path: Path) -> None:
    """Copies files without the modes of the store, whose files are read-only.

    Raises:
        StoreError: the file system does not take them.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, path, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(source, path)
    except OSError as error:
        from sdbuild.store.disk import file_error

        raise file_error(error, path, _OTHER) from error
