"""Rules of the contract that a recipe alone can break are checked before anything is built."""

import pytest

from sdbuild.base.errors import ContractBroken
from sdbuild.bundle.contract import RULES, require_planned
from sdbuild.recipe.foreseen import foreseen
from sdbuild.recipe.project import BUILT_IN
from sdbuild.recipe.recipe import load

SD = 'family = "sd"\nsource = "none"\nsize = 512\n'
XL = 'family = "sdxl"\nsource = "none"\nsize = 1024\n'
OF_SD = 'components = ["text_encoder", "unet", "vae_decoder"]\n'
OF_XL = 'components = ["text_encoder", "text_encoder_2", "unet", "vae_decoder"]\n'
WITH_REFINER = OF_XL.replace("]", ', "refiner"]') + 'refiner_source = "none"\n'


def broken(path):
    """The rules that the bundle of a recipe would break."""
    try:
        require_planned(foreseen(load({"model": str(path)})))
    except ContractBroken as error:
        return {found["rule"] for found in error.facts["violations"]}
    return set()


@pytest.mark.parametrize(("text", "rules"), [
    (SD + OF_SD, set()),
    (SD + 'components = ["unet"]\n', {"has_the_models_of_every_picture"}),
    (SD + 'components = ["text_encoder", "vae_decoder"]\n', {"has_a_unet"}),
    (SD + OF_SD + "chunk = 2\nbatch = 1\n", set()),
    (SD + OF_SD + 'batch = 1\ncontrolnet = "net"\n',
     {"batch_is_two", "controlnets_inputs_have_their_shapes"}),
    (SD + OF_SD + 'chunk = 2\nbatch = 2\ncontrolnet = "net"\n', set()),
    (SD + OF_SD + "[draw]\nguidance = 0\n", {"low_guidance_has_a_batch_of_one"}),
    (SD + OF_SD + "batch = 1\n[draw]\nguidance = 0\n", set()),
    (SD + OF_SD + "batch = 1\n[draw]\ncount = 2\n", {"a_batch_of_one_draws_one_picture"}),
    (SD + OF_SD + '[draw]\nsteps = 1\nscheduler = "pndm"\n', {"one_step_has_a_scheduler_for_it"}),
    (XL + OF_XL + "[draw]\nguidance = 0\n", {"guidance_is_at_least_one"}),
    (XL + WITH_REFINER + "[draw]\nsteps = 1\n", {"a_refiner_leaves_a_step_for_the_base"}),
    (SD + 'components = ["unet", "vae_decoder"]\nlower = "packages"\nbatch = 1\n',
     {"has_the_models_of_every_picture"}),
])
def test_a_bundle_that_no_host_could_use_is_known_by_its_recipe(text, rules, tmp_path):
    (tmp_path / "recipe.toml").write_text(text)

    assert broken(tmp_path / "recipe.toml") == rules


@pytest.mark.parametrize("path", sorted(BUILT_IN.glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_that_ship_break_nothing(path):
    assert broken(path) == set()


def test_the_rules_that_a_recipe_can_break_are_errors():
    assert {rule.level for rule in RULES if rule.by_recipe} == {"error"}
