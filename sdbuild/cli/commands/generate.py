"""`generate`: images from a finished bundle, or from the recipe's."""

from __future__ import annotations

from pathlib import Path

import click

from sdbuild.base.errors import RecipeError
from sdbuild.cli.options import OutsidePath, as_command, recipe_variables
from sdbuild.recipe.fields import DRAW_FIELDS, INPUT_FIELDS, VARIABLES
from sdbuild.recipe.tables import values_of

_FIELDS = (*DRAW_FIELDS, *INPUT_FIELDS)


@as_command()
@click.argument("bundle", type=OutsidePath(), required=False)
@click.option("--weight-bytes", type=click.IntRange(min=0), metavar="N",
              help="Decoded weights that the portable executor keeps of each component.  "
              "[default: all]")
@recipe_variables(with_image=True)
def command(bundle: Path | None, weight_bytes: int | None, words: dict[str, str]) -> int:
    """Generate images.

    BUNDLE is the folder of a finished bundle; the recipe's own, which is built if needed, if it is
    left out.
    """
    from sdbuild.bundle.manifest import load_bundle
    from sdbuild.bundle.request import Request
    from sdbuild.recipe import settings
    from sdbuild.recipe.project import Project
    from sdbuild.runtime.generate import generate

    project = Project.here()
    predictor = settings.predictor(project, words)
    if bundle is None:
        from sdbuild.cli.dodo import build_bundle
        from sdbuild.recipe.recipe import load

        bundle, status = build_bundle(words)
        if status:
            return status
        made, request = load_bundle(bundle), load(words).request
    else:
        _refuse_recipe(words)
        made = load_bundle(bundle)
        own = {f.name: made.defaults[f.name] for f in DRAW_FIELDS if f.name in made.defaults}
        where = f"{made.folder / 'manifest.json'}: draw"
        request = Request(**values_of(_FIELDS, own, words, where))
    out = project.path(VARIABLES["out"], words) or Path("images", f"{made.name}.png")
    report = project.path(VARIABLES["report"], words)
    trace = project.path(VARIABLES["trace"], words)
    for path in generate(made, request, out, report, predictor, weight_bytes, trace):
        click.echo(path)
    return 0


def _refuse_recipe(words: dict[str, str]) -> None:
    """Refuses variables of a recipe for a bundle that is finished.

    Raises:
        RecipeError: there are some.
    """
    known = [*(field.name for field in _FIELDS), "out", "report", "trace", "predictor"]
    for name in words:
        if name not in known:
            raise RecipeError(f"{name}={words[name]}: the bundle is finished, expected only "
                              f"{', '.join(known)}", hint="leave BUNDLE away to build with it")
