"""`mixed_bit_compression_apply`: which constant each name of an analysis is, and the package."""

import json
from pathlib import Path

import pytest

from sdbuild.base.errors import MILError
from sdbuild.cli.apple.mixed import bits_of
from sdbuild.cli.main import main
from sdbuild.families import FAMILIES
from sdbuild.mil.inspect.packed import packing
from sdbuild.mil.inspect.summary import read_models, weights
from sdbuild.recipe.project import BUILT_IN
from sdbuild.safetensors.tensors import table
from tests.mil.packages import IOS16, convolutions

HERE = Path("Unet.mlpackage")


def test_constants_are_named_after_parameters_with_or_without_a_prefix():
    bits = {"conv_in.weight": 8, "down_blocks.0.attn1.to_q.weight": 2, "*": 16}
    ends = ["conv_in_weight", "down_blocks_0_attn1_to_q_weight"]

    for prefix in ("", "unet_", "p_net_"):
        names = [f"{prefix}{ends[0]}_to_fp16", f"{prefix}{ends[1]}_to_fp16_0"]
        assert bits_of([*names, "other_weight_to_fp16"], bits, HERE) == {names[0]: 8, names[1]: 2}


@pytest.mark.parametrize(("constants", "bits", "said"), [
    (["conv_out_weight"], {"conv_in.weight": 4}, "1 name of the recipe are of no weight"),
    (["down_blocks_0_conv_weight"], {"down_blocks.O.conv.weight": 4},
     'did you mean "down_blocks_0_conv_weight"?'),
    (["a_conv_weight", "b_conv_weight"], {"conv.weight": 4},
     "which weight conv.weight is, is ambiguous: a_conv_weight; b_conv_weight"),
    (["a_b_c_weight"], {"a.b_c.weight": 4, "a_b.c.weight": 6},
     "ambiguous: a.b_c.weight; a_b.c.weight"),
])
def test_what_is_ambiguous_or_unknown_is_refused(constants, bits, said):
    with pytest.raises(MILError) as refused:
        bits_of(constants, bits, HERE)

    assert said in str(refused.value)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a package of three layers, and an analysis of them."""
    monkeypatch.chdir(tmp_path)
    convolutions(tmp_path / "Unet.mlpackage", IOS16, layers=3)
    (tmp_path / "analysis.json").write_text(json.dumps(
        {"recipes": {"low": {"conv0": 2, "conv1": 16}, "high": {"conv2": 8}}}), "utf-8")
    return tmp_path


def apply(*flags):
    return main(["mixed_bit_compression_apply", "--mlpackage-path", "Unet.mlpackage",
                 "--pre-analysis-json-path", "analysis.json", *flags])


def test_the_package_has_the_bits_of_the_selected_recipe(place, capsys):
    assert apply("--selected-recipe", "low", "-o", "out") == 0

    (model,) = read_models(place / "out.mlpackage")
    assert packing(model.program) == {2}
    assert [weight.name for weight in weights(model) if len(weight.shape) == 4] == [
        "conv1_weight_0", "conv2_weight_0"]
    assert capsys.readouterr().out.startswith(" 2 bits: 1 weight, ")


def test_a_recipe_that_is_not_there_is_refused_with_those_that_are(place, capsys):
    assert apply("--selected-recipe", "lwo", "-o", "out") == 2

    said = capsys.readouterr().err
    assert 'no recipe \'lwo\'; did you mean "low"?' in said
    assert "one of: low, high" in said
    assert not (place / "out.mlpackage").exists()


def test_every_module_that_an_analysis_names_has_a_parameter_of_ours():
    import torch
    from diffusers import UNet2DConditionModel

    folder = BUILT_IN / "tiny-emoji" / "unet"
    with torch.device("meta"):
        network = UNet2DConditionModel.from_config(json.loads((folder / "config.json").read_text()))
    modules = [name for name, module in network.named_modules()
               if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]
    unet = FAMILIES["sd"].component("unet")
    ours = {unet.parameter(name)
            for name in table([folder / "diffusion_pytorch_model.safetensors"])}

    assert len(modules) > 50
    assert {f"{name}.weight" for name in modules} <= ours
