"""Several sizes in one bundle: a function for each in every model, over one file of weights."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from sdbuild.base.digest import digest_file
from sdbuild.base.errors import BundleError
from sdbuild.bundle.manifest import load_bundle
from sdbuild.bundle.request import Request
from sdbuild.cli.api import load_bundle as load_for_python
from sdbuild.recipe.project import BUILT_IN
from sdbuild.recipe.recipe import load
from sdbuild.runtime.pipeline import Pipeline
from sdbuild.store.scan import files
from tests.families.references import psnr
from tests.inprocess import Steps

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
SIZES = ((128, 128), (128, 192))
WORDS = {"model": "tiny-emoji", "components": "text_encoder,unet,vae_decoder", "quant": "none",
         "target": "iOS18", "compiler": "portable"}
REQUEST = {"prompt": "a fox face on a yellow background", "negative": "", "seed": 4, "steps": 4,
           "guidance": 5.0, "scheduler": "ddim", "count": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return lambda **words: Steps(load(WORDS | words), folder)


@pytest.fixture(scope="module")
def bundle(made):
    return load_bundle(made(size="128x128,128x192")["bundle"])


@pytest.fixture(scope="module")
def original():
    found = StableDiffusionPipeline.from_pretrained(BUILT_IN / "tiny-emoji", safety_checker=None)
    found.scheduler = DDIMScheduler.from_config(found.scheduler.config)
    found.set_progress_bar_config(disable=True)
    return found.to(torch.float32)


@pytest.mark.parametrize("size", SIZES)
def test_each_size_draws_diffusers_picture(bundle, original, size):
    width, height = size
    [drawn] = Pipeline(bundle.at(size), "portable").draw(Request(**REQUEST))

    [wanted] = original(
        REQUEST["prompt"], num_inference_steps=4, guidance_scale=5.0, width=width, height=height,
        generator=torch.Generator().manual_seed(4), output_type="np").images

    assert drawn.image.size == size
    assert psnr(np.asarray(drawn.image) / 255, wanted) >= 50


def test_two_sizes_take_a_tenth_more_than_one_at_most_and_share_its_weights(made, bundle):
    one = made(size="128x128")["bundle"]

    sizes = [sum(path.stat().st_size for path in files(folder)) for folder in (one, bundle.folder)]

    assert sizes[1] <= 1.1 * sizes[0]
    for model in ("UnetChunk1", "UnetChunk2", "VAEDecoder"):
        place = f"{model}.mlmodelc/weights/weight.bin"
        assert digest_file(one / place) == digest_file(bundle.folder / place)


def test_python_draws_at_a_size_that_the_bundle_has_and_says_which_it_has(bundle):
    found = load_for_python(bundle.folder)
    settings = {**REQUEST, "steps": 1}

    [picture] = found.generate(**settings, predictor="portable", size=(128, 192))

    assert picture.size == (128, 192)
    with pytest.raises(BundleError, match="no images of 256x256, only of 128x128, 128x192") as told:
        found.generate(**settings, predictor="portable", size=(256, 256))
    assert told.value.hint == "build it with size=128x128,128x192,256x256 target=iOS18"
