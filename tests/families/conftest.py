"""Checkpoints that tests of several families read."""

import json

import pytest

from sdbuild.recipe.recipe import load
from tests.families.references import SD3_COMPONENTS, SD3_SIZE
from tests.inprocess import Steps
from tests.tiny_checkpoints import write_checkpoint


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The checkpoints of a base model and a refiner, by their families."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {family: write_checkpoint(folder / family, family)
            for family in ("sdxl", "sdxl-refiner")}


@pytest.fixture(scope="module")
def sd3_places(tmp_path_factory):
    """The folder of a checkpoint of a style, written when it is first asked for."""
    root, made = tmp_path_factory.mktemp("checkpoints"), {}

    def place(style):
        if style not in made:
            made[style] = write_checkpoint(root / style, style)
        return made[style]
    return place


@pytest.fixture(scope="module")
def sd3_variant(sd3_places, tmp_path_factory):
    """The steps of a variant of a recipe for a style's checkpoint; all share what they can."""
    folder = tmp_path_factory.mktemp("steps")

    def steps(style="sd3.5-medium", components=SD3_COMPONENTS, **words):
        path = folder / f"tiny-{style.replace('.', '-')}.toml"
        path.write_text(f'family = "sd3"\nsource = "{sd3_places(style)}"\n'
                        f'size = "{SD3_SIZE[0]}x{SD3_SIZE[1]}"\n'
                        f'components = {json.dumps(components)}\ncompiler = "portable"\n')
        return Steps(load({"model": str(path)} | words), folder)
    return steps
