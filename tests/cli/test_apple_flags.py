"""The flags of Apple's programs: read as argparse reads them, and as recipes of ours."""

import argparse
import json
import tomllib
from pathlib import Path

import pytest

from sdbuild.base.errors import RecipeError
from sdbuild.cli.apple import programs
from sdbuild.cli.apple.draw import image_path
from sdbuild.cli.apple.names import compiled_controlnet, package, place_of
from sdbuild.cli.apple.programs import APPLY, CHUNK, PIPELINE, PRE_ANALYSIS, TORCH2COREML
from sdbuild.cli.apple.wanted import refuse_unsupported, wanted
from sdbuild.cli.main import main
from sdbuild.engine.plan import plan
from sdbuild.recipe.project import BUILT_IN
from sdbuild.recipe.recipe import load
from sdbuild.recipe.text import text_of
from tests.tiny_checkpoints import write_checkpoint

COMMANDS = json.loads((Path(__file__).parents[1] / "fixtures" / "apple" / "commands.json")
                      .read_text("utf-8"))
"""Command lines of public guides and issues, each with its source."""
PROGRAMS = {program.module: program
            for program in (TORCH2COREML, PIPELINE, CHUNK, PRE_ANALYSIS, APPLY)}
RUNS = [(command["id"], run["module"], run["argv"]) for command in COMMANDS
        for run in command.get("runs", [command])]


@pytest.mark.parametrize(("name", "module", "argv"), RUNS, ids=[run[0] for run in RUNS])
def test_command_lines_of_guides_and_issues_are_read(name, module, argv):
    if name == "template-missing-dashes":
        with pytest.raises(RecipeError, match="'compute-unit': not a flag; did you mean "
                                              '"--compute-unit"'):
            PROGRAMS[module].read(argv)
        return

    given = PROGRAMS[module].read(argv)

    assert given.explicit >= {word.lstrip("-").partition("=")[0].replace("-", "_")
                              for word in argv if word.startswith("-")}
    assert given.words == {}


@pytest.mark.parametrize(("argv", "wrong"), [
    (["--convert-unett"], 'unknown flag \'--convert-unett\'; did you mean "--convert-unet"?'),
    (["--convert"], "ambiguous option: --convert could match"),
    (["--quantize-nbits", "5"], "--quantize-nbits: invalid choice: 5"),
    (["--quantize-nbits", "six"], "--quantize-nbits: invalid integer value: 'six'"),
    (["--latent-h"], "--latent-h: expected one argument"),
    (["--attention-implementation", "split_einsum"], "--attention-implementation: invalid choice"),
    (["--min-deployment-target", "iOS15"], "--min-deployment-target: invalid choice"),
    (["--convert-unet=yes"], "--convert-unet: ignored explicit argument 'yes'"),
    (["convert-unet"], '\'convert-unet\': not a flag; did you mean "--convert-unet"?'),
    (["quant=6", "--convert-unet"], "'quant=6': not a setting of this command"),
    (["cahce=x"], "'cahce=x': not a setting of this command; did you mean \"cache\"?"),
    (["cache=a", "--convert-unet", "cache=b"], "cache= is given twice"),
    (["—convert-unet"], "a typographic dash or quote"),
])
def test_a_mistake_is_named_with_what_may_be_meant(argv, wrong, capsys):
    assert main(["torch2coreml", *argv]) == 2

    assert wrong in capsys.readouterr().err


def test_flags_are_read_as_argparse_reads_them():
    """Expected values: argparse itself, with the flags of the converter's own parser."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--convert-controlnet", nargs="*")
    parser.add_argument("--model-version")
    parser.add_argument("--quantize-nbits", type=int)
    parser.add_argument("--chunk-unet", action="store_true")
    parser.add_argument("-o")
    for line in (["--model=a/b", "-oout", "--chunk"],
                 ["--convert-c", "x/y", "z", "--quant=6", "-o", "--", "a"],
                 ["--convert-controlnet", "--model-version", "m", "--quantize", "8", "-o", "."]):
        try:
            expected = vars(parser.parse_args(line))
        except SystemExit:
            with pytest.raises(RecipeError):
                TORCH2COREML.read(line)
            continue
        found = TORCH2COREML.read(line)
        assert {name: found.values[name] for name in expected if expected[name]} == {
            name: value for name, value in expected.items() if value}


@pytest.mark.parametrize("argv", [
    ["cache=a", "ram=8G", "--convert-unet"], ["--convert-unet", "cache=a", "ram=8G"],
    ["cache=a", "--convert-unet", "ram=8G"]])
def test_settings_of_ours_stand_before_or_after_the_flags(argv):
    given = TORCH2COREML.read(argv)

    assert given.words == {"cache": "a", "ram": "8G"}
    assert given.convert_unet


@pytest.mark.parametrize("flag", ["--prompt", "--pro"])
def test_a_prompt_that_looks_like_a_setting_is_a_prompt(flag):
    given = PIPELINE.read(["-i", "a", "-o", "b", flag, "rng=torch"])

    assert given.prompt == "rng=torch"
    assert given.words == {}


@pytest.mark.parametrize(("argv", "named"), [
    (["--convert-mmdit"], "--convert-mmdit"), (["--sd3-version"], "--sd3-version"),
    (["--model-version", "stabilityai/stable-diffusion-3-medium"], "Stable Diffusion 3"),
    (["--model-version", "black-forest-labs/FLUX.1-schnell"], "FLUX"),
])
def test_a_family_that_is_not_built_is_refused_by_name_before_anything_is_fetched(
    argv, named, monkeypatch,
):
    import sdbuild.cli.apple.wanted as module

    families = {name: family for name, family in module.FAMILIES.items()
                if name in ("sd", "sdxl", "sdxl-refiner")}
    monkeypatch.setattr(module, "FAMILIES", families)

    with pytest.raises(RecipeError, match=named):
        refuse_unsupported(TORCH2COREML.read(argv))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A small checkpoint of each shape."""
    root = tmp_path_factory.mktemp("checkpoints")
    for style in ("sd1", "sd2", "sdxl", "sdxl-refiner", "sd3"):
        write_checkpoint(root / style, style, unet={"sample_size": 96 if style == "sd2" else 64})
    return root


def converted(argv, checkpoints, style):
    """Returns the variables that flags become, for a small checkpoint instead of the one that they
    name."""
    given = TORCH2COREML.read([*argv, "--model-version", str(checkpoints / style)])
    asked = tuple(name for name in programs.PARTS if given.values[name])
    return wanted(given, asked, {})


SHAPES = {
    "mlsd165-controlled-768": ("sd1", {"size": "768x768", "attention": "original"}),
    "mlsd173-sdxl-without-xl-flag": ("sdxl", {"size": "512x512", "quant": "6"}),
    "mlsd288-sdxl-local": ("sdxl", {"attention": "split_einsum", "quant": "none"}),
    "mochi227-vpred-original": ("sd2", {"size": "768x768", "attention": "original"}),
    "mlsd81-chunks-ne": ("sd2", {"attention": "split_einsum"}),
    "zenn-sd21-splitv2": ("sd2", {"size": "768x768", "attention": "split_einsum_v2"}),
    "mlsd217pr227-refiner-alone": ("sdxl-refiner", {"attention": "original"}),
    "mlsd152-equals-form": ("sd1", {"attention": "split_einsum", "target": "macOS13"}),
    "mlsd375-sd3-t5": ("sd3", {"attention": "original"}),
}
PARTS = {
    "mlsd165-controlled-768": "text_encoder vae_decoder vae_encoder controlled_unet",
    "mlsd173-sdxl-without-xl-flag": "text_encoder text_encoder_2 vae_decoder unet",
    "mlsd288-sdxl-local": "text_encoder text_encoder_2 vae_decoder unet",
    "mochi227-vpred-original": "text_encoder vae_decoder vae_encoder unet",
    "mlsd81-chunks-ne": "text_encoder vae_decoder unet",
    "zenn-sd21-splitv2": "text_encoder vae_decoder unet",
    "mlsd217pr227-refiner-alone": "text_encoder_2 vae_decoder vae_encoder unet",
    "mlsd152-equals-form": "text_encoder vae_decoder unet",
    "mlsd375-sd3-t5": "vae_decoder transformer text_encoder_3",
}
"""The components that each guide converts, of a checkpoint without a safety checker."""


@pytest.mark.parametrize("name", SHAPES)
def test_flags_become_the_settings_of_a_recipe(name, checkpoints):
    (argv,) = (argv for found, _, argv in RUNS if found == name)
    style, words = SHAPES[name]

    found = converted(argv, checkpoints, style)

    assert words.items() <= found.words.items()
    assert sorted(found.components) == sorted(PARTS[name].split())
    left = [note for note in found.notes if "left out" in note]
    assert bool(left) == ("--convert-safety-checker" in argv)
    assert any("--xl-version was not given" in note for note in found.notes) == (
        name == "mlsd173-sdxl-without-xl-flag")


@pytest.mark.parametrize("name", SHAPES)
def test_the_printed_recipe_plans_the_same_steps(name, checkpoints, tmp_path):
    (argv,) = (argv for found, _, argv in RUNS if found == name)
    found = converted(argv, checkpoints, SHAPES[name][0])
    (tmp_path / "same.toml").write_text(text_of(found.recipe, found.words), "utf-8")

    same = plan(load({"model": str(tmp_path / "same.toml")}))

    ours = plan(found.recipe)
    assert tomllib.loads((tmp_path / "same.toml").read_text())["chunk"] == 1
    assert {n: (s.params, s.inputs, s.source) for n, s in same.steps.items()
            if n.startswith(("download", "convert", "palettize"))} == {
        n: (s.params, s.inputs, s.source) for n, s in ours.steps.items()
        if n.startswith(("download", "convert", "palettize"))}


def test_a_refiner_and_another_autoencoder_come_from_their_own_places(checkpoints):
    found = converted(
        ["--convert-unet", "--convert-vae-decoder", "--xl-version",
         "--refiner-version", str(checkpoints / "sdxl-refiner"),
         "--custom-vae-version", str(checkpoints / "sdxl")], checkpoints, "sdxl")

    assert found.components == ("vae_decoder", "unet", "refiner")
    places = {name: source.places for name, source in found.recipe.sources.elsewhere.items()}
    assert places == {"vae": (str(checkpoints / "sdxl"),),
                      "refiner_source": (str(checkpoints / "sdxl-refiner"),)}


def test_palettes_are_for_u_nets_text_encoders_and_controlnets(checkpoints, tmp_path):
    net = tmp_path / "control_v11p-sd15-canny"
    net.mkdir()
    found = converted(["--convert-unet", "--convert-vae-decoder", "--quantize-nbits", "4",
                       "--convert-controlnet", str(net)], checkpoints, "sd1")

    steps = plan(found.recipe).steps

    palettized = {name.partition(":")[2] for name in steps if name.startswith("palettize:")}
    assert palettized == {"unet", "controlled_unet", "controlnet/ControlV11PSd15Canny"}


def test_controlnets_alone_need_no_checkpoint(tmp_path):
    net = tmp_path / "canny"
    net.mkdir()
    given = TORCH2COREML.read(["--convert-controlnet", str(net), "--latent-h", "64",
                               "--latent-w", "96"])

    found = wanted(given, (), {})

    assert found.words["size"] == "768x512"
    assert "source" not in found.words


@pytest.mark.parametrize(("style", "argv", "wrong"), [
    ("sd1", ["--text-token-sequence-length", "154"],
     "--text-token-sequence-length 154: expected 77"),
    ("sd1", ["--text-encoder-hidden-size", "768"], "takes 32"),
    ("sdxl", ["--unet-batch-one"], "batch=1 for Stable Diffusion XL"),
    ("sdxl-refiner", ["--unet-support-controlnet"], "hosts run no ControlNets of Stable Diff"),
])
def test_flags_that_do_not_fit_the_checkpoint_are_refused(style, argv, wrong, checkpoints):
    with pytest.raises(RecipeError, match=wrong):
        plan(converted(["--convert-unet", *argv], checkpoints, style).recipe)


def test_a_model_that_is_neither_there_nor_a_repository_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("owner").mkdir()
    Path("owner/name").mkdir()

    assert place_of("owner/other", "--model-version") == "hub:owner/other"
    assert place_of("owner/name", "--model-version") == "owner/name"
    with pytest.raises(RecipeError, match="there is no such folder or file"):
        place_of("./diffusers", "--model-version")


@pytest.mark.parametrize(("net", "name"), [
    ("lllyasviel/sd-controlnet-mlsd", "LllyasvielSdControlnetMlsd"),
    ("lllyasviel/control_v11f1e_sd15_tile", "LllyasvielControlV11F1ESd15Tile"),
    ("control_v11p-sd15-canny", "ControlV11PSd15Canny"),
])
def test_controlnets_are_called_as_apps_call_them(net, name):
    """Expected names: Apple's README, and the files of its repositories."""
    assert compiled_controlnet(net) == f"Resources/controlnet/{name}.mlmodelc"


def test_packages_are_called_after_the_model_and_the_part():
    """MochiDiffusion, issue 155: a local path ends up in the name, slashes as underscores."""
    assert package("./diffusers", "controlled_unet", 2) == \
        "Stable_Diffusion_version_._diffusers_control-unet_chunk2.mlpackage"


@pytest.mark.parametrize(("prompt", "folder"), [
    ("a cat / dog", "a_cat___dog"), ("..", "_"), ("x" * 300, "x" * 180),
    ("../../etc/passwd", ".._.._etc_passwd"),
])
def test_an_image_is_called_as_apples_pipeline_calls_it(prompt, folder, tmp_path):
    given = PIPELINE.read(["--prompt", prompt, "-i", "m", "-o", str(tmp_path), "--scheduler",
                           "DDIM", "-s", "7"])

    path = image_path(given)

    assert path.parent == tmp_path / folder
    assert path.name == ("randomSeed_7_computeUnit_ALL_modelVersion_CompVis_stable-diffusion-v1-4"
                         "_customScheduler_DDIM_numInferenceSteps50.png")


@pytest.mark.parametrize(("flags", "note"), [
    (["--convert-unet", "--sd3-version"], "--sd3-version does not fit"),
    (["--convert-unet", "--unet-support-controlnet", "--unet-batch-one"],
     "--unet-batch-one: Apple's Swift package feeds"),
])
def test_flags_that_do_not_go_with_the_checkpoint_are_told(flags, note):
    given = TORCH2COREML.read([*flags, "--model-version", str(BUILT_IN / "tiny-emoji")])
    asked = tuple(flag for flag in programs.PARTS if given.values[flag])

    assert any(each.startswith(note) for each in wanted(given, asked, {}).notes)
