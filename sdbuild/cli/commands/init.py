"""`init`: a project with a recipe that works as it is."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from sdbuild.base.errors import RecipeError
from sdbuild.base.paths import real_path
from sdbuild.cli.options import OutsidePath, as_command, json_option, print_json

_TEMPLATES = Path(__file__).parents[1] / "templates"
_FILES = {
    "sdbuild.toml": "sdbuild.toml",
    "recipe.toml": "recipes/NAME.toml",
    "recipe.schema.json": "schemas/recipe.schema.json",
    "project.schema.json": "schemas/project.schema.json",
    "dodo.py": "dodo.py",
    "doit.cfg": "doit.cfg",
    "gitignore": ".gitignore",
    "build.yml": ".github/workflows/build.yml",
}
"""The templates, and the files of a project that are made from them."""


@as_command()
@click.argument("folder", type=OutsidePath(), default=".", metavar="[FOLDER]")
@click.option("--name", default="my-model", metavar="NAME",
              help="The name of the recipe.  [default: my-model]")
@json_option
def command(folder: Path, name: str, is_json: bool) -> int:
    """Create a project with a recipe that works as it is.

    Existing files are never overwritten. FOLDER is the current one by default.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise RecipeError(f"--name is {name!r}, expected letters, digits and ._-, at most 64")
    made: list[tuple[Path, bool]] = []
    for template, target in _FILES.items():
        path = folder / target.replace("NAME", name)
        text = (_TEMPLATES / template).read_text("utf-8").replace("NAME", name)
        made.append((path, _write(path, text)))
    if is_json:
        print_json(files=[{"path": str(path), "is_new": is_new} for path, is_new in made])
        return 0
    for path, is_new in made:
        click.echo(f"{'created' if is_new else 'exists '}  {path}")
    place = "" if real_path(folder) == Path.cwd() else f"cd {folder}, then "
    click.echo(f"\nNext: {place}sdbuild build && sdbuild generate")
    return 0


def _write(path: Path, text: str) -> bool:
    """Writes a file unless something has its name already; says whether it did.

    Raises:
        StoreError: the file system does not take it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        if path.parent.is_dir():
            return False
        raise RecipeError(f"{path.parent}: not a folder") from None
    except OSError as error:
        from sdbuild.store.disk import file_error

        raise file_error(error, path, "choose another folder") from error
    with os.fdopen(made, "w", encoding="utf-8") as file:
        file.write(text)
    return True
