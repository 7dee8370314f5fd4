"""`generate`: images from a finished bundle, or from the recipe's."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdbuild.base.errors import RecipeError
from sdbuild.base.garbage import importing, rare_searches
from sdbuild.cli.options import (
    OutsidePath,
    as_command,
    json_option,
    print_json,
    recipe_variables,
    weight_bytes_option,
)
from sdbuild.cli.variants import for_each_variant
from sdbuild.recipe.fields import (
    DRAW_FIELDS,
    IMAGE_SIZE_FIELD,
    INPUT_FIELDS,
    PREVIEWS_FIELD,
    VARIABLES,
    VARIANT_FIELD,
    parse,
)
from sdbuild.recipe.tables import values_of

if TYPE_CHECKING:
    from sdbuild.bundle.manifest import Bundle
    from sdbuild.bundle.request import Request

_OF_IMAGE = (*DRAW_FIELDS, *INPUT_FIELDS)
_OF_BUNDLE = (VARIANT_FIELD, VARIABLES["prediction_type"], IMAGE_SIZE_FIELD)
_OTHERS = ("out", "report", "trace", "previews", "predictor")


@as_command()
@for_each_variant
@click.argument("bundle", type=OutsidePath(), required=False)
@weight_bytes_option
@recipe_variables(with_image=True)
@json_option
def command(
    bundle: Path | None, weight_bytes: int | None, words: dict[str, str], is_json: bool
) -> int:
    """Generate images.

    BUNDLE is a finished bundle from any tool: a folder, a zip, or hub:owner/name; the recipe's
    own, which is built if needed, if it is left out.
    """
    from sdbuild.base.machine import PATIENT

    os.environ.update(PATIENT)  # before torch starts its threads

    def draw(made: Bundle, request: Request) -> None:
        from sdbuild.recipe import settings
        from sdbuild.recipe.project import Project

        with importing():
            from sdbuild.runtime.generate import generate

        project = Project.here()
        predictor = settings.predictor(project, words)
        out = project.path(VARIABLES["out"], words) or Path("images", f"{made.name}.png")
        report = project.path(VARIABLES["report"], words)
        trace = project.path(VARIABLES["trace"], words)
        previews = values_of((PREVIEWS_FIELD,), {}, words, "")["previews"]
        paths = []
        with rare_searches():
            for path in generate(made, request, out, report, predictor, weight_bytes, trace,
                                 previews):
                paths.append(str(path))
                if not is_json:
                    click.echo(path)
        if is_json:
            print_json(bundle=str(made.folder), images=paths)

    return _of_finished(bundle, words, draw) if bundle else _of_recipe(words, draw, is_json)


def _of_recipe(
    words: dict[str, str], draw: Callable[[Bundle, Request], None], is_json: bool
) -> int:
    """Draws with the recipe's own bundle."""
    from sdbuild.bundle.install import check_writable
    from sdbuild.bundle.manifest import load_bundle
    from sdbuild.cli.api import run
    from sdbuild.cli.reporter import Before
    from sdbuild.recipe.project import Project
    from sdbuild.recipe.recipe import load

    if (out := Project.here().path(VARIABLES["out"], words)) is not None:
        check_writable(out, "choose another location with out=FILE")  # before anything is built
    size = _size_of_several(words)
    words = {name: word for name, word in words.items() if size is None or name != "size"}
    with redirect_stdout(sys.stderr if is_json else sys.stdout):
        built = run(words, ("build",), 1, Before())
    if is_json and built.error is not None:
        raise built.error
    if not built.status:
        bundle = load_bundle(built.bundle)
        draw(bundle.at(size) if size else bundle, load(words).request)
    return built.status


def _size_of_several(words: dict[str, str]) -> tuple[int, int] | None:
    """Returns the size that is asked for, if it is one of several that the recipe has; None if it
    is for a bundle of that size alone."""
    from sdbuild.recipe.recipe import load

    if "size" not in words or "source" in words:
        return None
    asked = parse(VARIABLES["size"], words["size"], "on the command line")
    own = load({name: word for name, word in words.items() if name != "size"}).network.sizes
    return asked[0] if len(asked) == 1 and asked[0] in own else None


def _of_finished(
    place: Path, words: dict[str, str], draw: Callable[[Bundle, Request], None]
) -> int:
    """Draws with a finished bundle, with the settings that it has itself where none are given."""
    from sdbuild.bundle.inferred import summary
    from sdbuild.bundle.places import bundle_in, located
    from sdbuild.cli.api import Bundle as Opened

    _refuse_recipe(words)
    own = values_of(_OF_BUNDLE, {}, words, "")
    with located(place, own["variant"]) as (folder, notes):
        made, assumed = bundle_in(folder, own["prediction_type"])
        for note in (*notes, *([summary(made)] if assumed else ())):
            click.echo(f"{made.name}: {note}", err=True)
        made = made.at(own["size"]) if own["size"] else made
        of_image = {field.name for field in _OF_IMAGE}
        draw(made, Opened(made).request({n: v for n, v in words.items() if n in of_image}))
    return 0


def _refuse_recipe(words: dict[str, str]) -> None:
    """Refuses variables of a recipe for a bundle that is finished.

    Raises:
        RecipeError: there are some.
    """
    known = [*(field.name for field in (*_OF_IMAGE, *_OF_BUNDLE)), *_OTHERS]
    for name in words:
        if name not in known:
            raise RecipeError(
                f"{name}={words[name]}: it changes what is built, and the bundle is finished",
                hint=f"leave BUNDLE out to build with {name}; docs/generate.md has the settings of "
                     "images")
