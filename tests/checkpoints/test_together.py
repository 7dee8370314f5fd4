"""Networks from several places that do not fit each other are refused before anything runs.

Expected widths and channels are those of the configs that diffusers wrote.
"""

import pytest
import torch
from diffusers import ControlNetModel

from sdbuild.base.errors import SourceError
from sdbuild.engine.build import Builder
from sdbuild.recipe.settings import settings
from tests.tiny_checkpoints import STYLES, write_checkpoint


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Checkpoints of several kinds, and a ControlNet of each, by their names."""
    folder = tmp_path_factory.mktemp("together")
    for style in ("sd1", "sd2", "sdxl"):
        write_checkpoint(folder / style, style)
        controlnet(folder / f"control-{style}", style)
    write_checkpoint(folder / "inpaint", "sd1", unet={"in_channels": 9})
    controlnet(folder / "control-deep", "sd1", layers_per_block=2)
    write_checkpoint(folder / "wide", "sdxl", unet={"cross_attention_dim": 96})
    return folder


def controlnet(folder, style, **changes):
    torch.manual_seed(3)
    config = {name: value for name, value in STYLES[style]["unet"].items()
              if name not in ("up_block_types", "sample_size")} | {"norm_num_groups": 8} | changes
    ControlNetModel(**config, conditioning_embedding_out_channels=(8, 8)).save_pretrained(folder)


def reach(made, tmp_path, source, **words):
    """Asks for what a build would read."""
    words = {name: str(made / value) for name, value in words.items()}
    builder = Builder.of(settings({"source": str(made / source), "size": "64", "lower": "here",
                                   "cache": str(tmp_path / "cache")} | words))
    builder.reach_sources(list(builder.plan.steps))


@pytest.mark.parametrize(("source", "words", "problem"), [
    ("sd1", {"controlnet": "control-sd2"},
     "control-sd2: controlnet/ControlSd2 takes prompts 48 wide, expected 32, .*/sd1 give them"),
    ("sd2", {"controlnet": "control-sd1"}, "takes prompts 32 wide, expected 48"),
    ("sd1", {"unet": "sd2"}, "/sd2: unet takes prompts 48 wide, expected 32"),
    ("sdxl", {"unet": "wide"}, r"/wide: unet takes prompts 96 wide, expected 80"),
    ("wide", {"controlnet": "control-sdxl"}, "unet takes prompts 96 wide, expected 80"),
    ("sd1", {"controlnet": "control-deep"},
     "control-deep: a ControlNet whose layers_per_block is 2, expected 1, .*/sd1"),
])
def test_parts_that_do_not_fit_are_found_before_anything_runs(
        made, tmp_path, source, words, problem):
    with pytest.raises(SourceError, match=problem) as error:
        reach(made, tmp_path, source, **words)
    assert error.value.hint


@pytest.mark.parametrize(("source", "words"), [
    ("sd1", {"controlnet": "control-sd1"}), ("sd2", {"controlnet": "control-sd2"}),
    ("sdxl", {"controlnet": "control-sdxl"}), ("sd1", {"unet": "inpaint"}),
    ("sd1", {"vae": "sdxl"}), ("inpaint", {"controlnet": "control-sd1"}),
])
def test_parts_that_fit_may_be_from_several_places(made, tmp_path, source, words):
    reach(made, tmp_path, source, **words)
