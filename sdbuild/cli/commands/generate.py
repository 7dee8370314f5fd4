"""`generate`: pictures from a finished bundle, without a store."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sdbuild.base.errors import BundleError, RecipeError
from sdbuild.base.suggestions import did_you_mean
from sdbuild.bundle.manifest import MANIFEST, Bundle, load_bundle
from sdbuild.recipe.fields import DRAW_FIELDS, VARIABLES, Field, parse

HELP = "draw pictures from a finished bundle"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the bundle, the settings of a picture, and where things go."""
    parser.add_argument("bundle", type=Path, help="the folder of a finished bundle")
    for field in DRAW_FIELDS:
        parser.add_argument(f"--{field.name}", help=field.meaning)
    parser.add_argument("--out", help="the PNG to write (default: images/<name>.png)")
    parser.add_argument("--report", type=Path, help="where timings go, as JSON")
    parser.add_argument("--predictor", default="auto", help="auto, coreml or portable")
    parser.add_argument("--weight-bytes", type=int, metavar="N", help="decoded weights that the "
                        "portable executor keeps of each component (default: all)")


def run(options: argparse.Namespace) -> int:
    """Draws and prints the paths of the pictures."""
    from sdbuild.recipe.recipe import Request
    from sdbuild.runtime.generate import generate
    from sdbuild.runtime.predictor import PREDICTORS

    if options.predictor not in PREDICTORS:
        raise RecipeError(
            f"--predictor is {options.predictor!r}, expected one of {', '.join(PREDICTORS)}"
            f"{did_you_mean(options.predictor, PREDICTORS)}"
        )
    bundle = load_bundle(options.bundle)
    request = Request(**{f.name: _setting(f, options, bundle) for f in DRAW_FIELDS})
    wanted = f"images/{bundle.name}.png" if options.out is None else options.out
    out = Path(parse(VARIABLES["out"], wanted, "on the command line"))
    for path in generate(bundle, request, out, options.report, options.predictor,
                         options.weight_bytes):
        print(path)
    return 0


def _setting(field: Field, options: argparse.Namespace, bundle: Bundle) -> Any:
    """A setting of the picture: the user's, else the bundle's."""
    asked = getattr(options, field.name)
    if asked is not None:
        return parse(field, asked, "on the command line")
    where = f"{bundle.folder / MANIFEST}: draw"
    if field.name not in bundle.defaults:
        raise BundleError(f"{where}: {field.name} is missing",
                          hint=f"say what you want: --{field.name}=…")
    return parse(field, bundle.defaults[field.name], where)
