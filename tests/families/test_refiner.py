"""Stable Diffusion XL's refiner: alone, and in one bundle with the base model."""

import json

import pytest

from sdbuild.base.errors import RecipeError
from sdbuild.base.filenames import contents
from sdbuild.recipe.recipe import load
from tests.families.references import predicted, psnr, unet_cases
from tests.inprocess import Steps

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch.export
BASE = "text_encoder,text_encoder_2,unet,vae_decoder"


@pytest.fixture(scope="module")
def steps(places, tmp_path_factory):
    """The steps of variants of a recipe of the family."""
    folder = tmp_path_factory.mktemp("refiner")

    def made(family, components, **words):
        file = folder / f"{family}.toml"
        file.write_text(f'family = "{family}"\nsource = "{places[family]}"\nsize = 128\n'
                        f'components = {json.dumps(components.split(","))}\n'
                        'compiler = "portable"\n')
        return Steps(load({"model": str(file)} | words), folder)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["original", "split_einsum"])
def test_the_refiner_predicts_diffusers_noise_at_every_timestep(places, steps, attention):
    made = steps("sdxl-refiner", "unet", attention=attention)

    for inputs, wanted in unet_cases(places["sdxl-refiner"], time_ids=[1024.0, 1024, 0, 0, 6]):
        found = predicted(made["compile:unet"], inputs)
        assert psnr(found["noise_pred"], wanted.numpy()) >= 62


@pytest.mark.slow
def test_a_bundle_may_have_both(places, steps):
    made = steps("sdxl", f"{BASE},refiner", refiner_source=str(places["sdxl-refiner"]),
                 quant="4", chunk="2")

    bundle = made["bundle"]

    [chunk] = json.loads((bundle / "UnetRefinerChunk1.mlmodelc" / "metadata.json").read_text())
    shapes = {p["name"]: json.loads(p["shape"]) for p in chunk["inputSchema"]}
    assert (shapes["time_ids"], shapes["encoder_hidden_states"]) == ([2, 5], [2, 48, 1, 77])
    assert {"UnetChunk1.mlmodelc", "UnetRefinerChunk2.mlmodelc"} <= {
        path.name for path in contents(bundle)}
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["components"]["refiner"]["nbits"] == 4


def test_a_refiner_needs_a_place(steps):
    with pytest.raises(RecipeError, match="no refiner_source") as caught:
        steps("sdxl", f"{BASE},refiner")

    assert "refiner_source=PLACE" in caught.value.hint


def test_it_is_read_from_its_own_checkpoint(places, steps):
    made = steps("sdxl", f"{BASE},refiner", refiner_source=str(places["sdxl-refiner"]))

    found = [json.loads((made[f"download:{part}"] / "architecture.json").read_text())["config"]
             for part in ("unet", "refiner")]

    assert [config["cross_attention_dim"] for config in found] == [80, 48]


def test_a_place_of_its_own_alone_does_not_bring_it(places, steps):
    made = steps("sdxl", BASE, refiner_source=str(places["sdxl-refiner"]))

    assert "download:refiner" not in made.plan.steps
