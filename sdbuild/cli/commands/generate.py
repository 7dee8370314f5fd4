"""`generate`: images from a finished bundle, or from the recipe's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdbuild.base.errors import BundleError, RecipeError
from sdbuild.base.suggestions import did_you_mean
from sdbuild.cli.options import OutsidePath, as_command, recipe_variables
from sdbuild.recipe.fields import DRAW_FIELDS, VARIABLES, Field, parse

if TYPE_CHECKING:
    from sdbuild.bundle.manifest import Bundle

_OF_IMAGE = tuple(field.name for field in DRAW_FIELDS)


@as_command()
@click.argument("bundle", type=OutsidePath(), required=False)
@click.option("--predictor", default="auto", metavar="auto|coreml|portable",
              help="The runtime of the models.  [default: auto]")
@click.option("--weight-bytes", type=click.IntRange(min=0), metavar="N",
              help="Decoded weights that the portable executor keeps of each component.  "
              "[default: all]")
@recipe_variables(with_image=True)
def command(
    bundle: Path | None, predictor: str, weight_bytes: int | None, words: dict[str, str]
) -> int:
    """Generate images.

    BUNDLE is the folder of a finished bundle; the recipe's own, which is built if needed, if it is
    left out.
    """
    from sdbuild.bundle.manifest import load_bundle
    from sdbuild.bundle.request import Request
    from sdbuild.recipe.project import Project
    from sdbuild.runtime.generate import generate
    from sdbuild.runtime.predictor import PREDICTORS

    if predictor not in PREDICTORS:
        raise RecipeError(f"--predictor is {predictor!r}, expected one of {', '.join(PREDICTORS)}"
                          f"{did_you_mean(predictor, PREDICTORS)}")
    asked = {name: value for name, value in words.items() if name in _OF_IMAGE}
    if bundle is None:
        from dataclasses import asdict

        from sdbuild.cli.dodo import build_bundle
        from sdbuild.recipe.recipe import load

        bundle, status = build_bundle(words)
        if status:
            return status
        asked = asdict(load(words).request)
    else:
        _refuse_recipe(words)
    made = load_bundle(bundle)
    request = Request(**{field.name: _setting(field, asked, made) for field in DRAW_FIELDS})
    project = Project.here()
    out = project.path(VARIABLES["out"], words) or Path("images", f"{made.name}.png")
    report = project.path(VARIABLES["report"], words)
    for path in generate(made, request, out, report, predictor, weight_bytes):
        click.echo(path)
    return 0


def _setting(field: Field, asked: Mapping[str, Any], bundle: Bundle) -> Any:
    """A setting of the image: the user's, else the bundle's."""
    if field.name in asked:
        return parse(field, asked[field.name], "on the command line")
    where = f"{bundle.folder / 'manifest.json'}: draw"
    if field.name not in bundle.defaults:
        raise BundleError(f"{where}: {field.name} is missing",
                          hint=f"say what you want: --{field.name}=…")
    return parse(field, bundle.defaults[field.name], where)


def _refuse_recipe(words: dict[str, str]) -> None:
    """Refuses variables of a recipe for a bundle that is finished.

    Raises:
        RecipeError: there are some.
    """
    known = [*_OF_IMAGE, "out", "report"]
    for name in words:
        if name not in known:
            raise RecipeError(f"{name}={words[name]}: the bundle is finished, expected only "
                              f"{', '.join(known)}", hint="leave BUNDLE away to build with it")
