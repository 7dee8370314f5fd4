"""Plans: which steps a recipe has, in which order, and what their keys are made of."""

import dataclasses
import os
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

from sdbuild import steps
from sdbuild.engine.plan import plan
from sdbuild.engine.stage import STAGES, BundleStage, From, Memory, Time, stage
from sdbuild.engine.step import Step, ingredients, tool_versions
from sdbuild.recipe.recipe import load
from sdbuild.store import key

FULL = """\
download:text_encoder
trace:text_encoder <- download:text_encoder/architecture.json
lower:text_encoder <- trace:text_encoder
convert:text_encoder <- lower:text_encoder, download:text_encoder
palettize:text_encoder <- convert:text_encoder
compile:text_encoder <- palettize:text_encoder
parity:text_encoder <- compile:text_encoder, download:text_encoder
download:unet
trace:unet <- download:unet/architecture.json
lower:unet <- trace:unet
convert:unet <- lower:unet, download:unet
palettize:unet <- convert:unet
chunk:unet <- palettize:unet
compile:unet <- chunk:unet
parity:unet <- compile:unet, download:unet
download:vae_decoder
trace:vae_decoder <- download:vae_decoder/architecture.json
lower:vae_decoder <- trace:vae_decoder
convert:vae_decoder <- lower:vae_decoder, download:vae_decoder
compile:vae_decoder <- convert:vae_decoder
parity:vae_decoder <- compile:vae_decoder, download:vae_decoder
download:resources
bundle <- download:resources, compile:text_encoder, compile:unet, compile:vae_decoder, \
download:vae_decoder/latents.json
originals <- download:text_encoder, download:unet, download:vae_decoder, download:resources, \
download:vae_decoder/latents.json
pictures <- compile:text_encoder, compile:unet, compile:vae_decoder, download:resources, \
download:vae_decoder/latents.json, originals
"""


def show(words):
    lines = []
    for step in plan(load(words)).steps.values():
        inputs = [f"{i.step}/{i.path}".rstrip("/") for i in step.inputs.values()]
        lines.append(step.name + (" <- " + ", ".join(inputs) if inputs else ""))
    return "\n".join(lines) + "\n"


def test_the_plan_of_a_recipe_is_this():
    words = {"quant": "6", "chunk": "2", "components": "text_encoder,unet,vae_decoder"}

    assert show(words) == FULL


SIZES = {"size": "128x128,128x192", "target": "iOS18", "quant": "6", "chunk": "2",
         "components": "text_encoder,unet"}
OF_SIZES = """\
download:unet
trace:unet <- download:unet/architecture.json
trace:unet@128x192 <- download:unet/architecture.json
lower:unet <- trace:unet
lower:unet@128x192 <- trace:unet@128x192
convert:unet <- lower:unet, download:unet
convert:unet@128x192 <- lower:unet@128x192, download:unet
unite:unet <- convert:unet, convert:unet@128x192
palettize:unet <- unite:unet
chunk:unet <- palettize:unet
compile:unet <- chunk:unet
parity:unet <- compile:unet, download:unet
parity:unet@128x192 <- compile:unet, download:unet
"""


def test_of_several_sizes_programs_are_made_for_each_and_palettes_once():
    lines = show(SIZES).splitlines(keepends=True)

    assert "".join(line for line in lines if ":unet" in line.split(" <- ")[0]) == OF_SIZES
    assert not [line for line in lines if "text_encoder@" in line or "unite:text" in line]


def test_a_step_of_one_size_is_the_same_in_a_bundle_of_several():
    several, one, other = (plan(load(SIZES | words)).steps for words in (
        {}, {"size": "128x128"}, {"size": "128x192"}))

    for kind in ("trace", "lower", "convert"):
        assert several[f"{kind}:unet"] == one[f"{kind}:unet"]
        assert several[f"{kind}:unet@128x192"].params == other[f"{kind}:unet"].params
    assert several["parity:unet@128x192"].params["function"] == "size_128x192"
    assert "function" not in one["parity:unet"].params


def test_stages_that_a_recipe_does_not_ask_for_are_not_in_its_plan():
    steps = plan(load({"quant": "none", "chunk": "1"})).steps

    assert not [name for name in steps if name.startswith(("palettize", "chunk"))]


def test_direct_conversion_takes_the_graph_and_lowers_nothing():
    steps = plan(load({"lower": "direct"})).steps

    assert "lower:unet" not in steps
    assert steps["convert:unet"].inputs["graph"] == From("trace:unet")


@pytest.mark.parametrize("quant", ["none", "6"])
def test_each_step_comes_after_those_that_it_needs(quant):
    steps = list(plan(load({"quant": quant})).steps.values())

    for number, step in enumerate(steps):
        before = {s.name for s in steps[:number]}
        assert {source.step for source in step.inputs.values()} <= before


def test_what_a_step_is_made_from_ends_with_itself_and_leaves_other_components_out():
    found = [s.name for s in plan(load({})).needed_by("convert:unet")]

    assert found == ["download:unet", "trace:unet", "lower:unet", "convert:unet"]


def test_a_lora_changes_the_u_net_that_takes_residuals_as_it_changes_the_plain_one():
    steps = plan(load({"model": "sd-1-5", "lora": "style.safetensors",
                       "controlnet": "canny.safetensors"})).steps

    merges = {name: step.params for name, step in steps.items() if name.startswith("merge:")}

    assert merges["merge:controlled_unet"] == merges["merge:unet"]
    assert merges["merge:unet"]["component"] == "unet"
    assert "merge:controlnet" not in merges


def test_a_lora_of_xl_changes_both_text_encoders_and_leaves_a_refiner_as_it_is():
    steps = plan(load({"model": "sdxl-base", "lora": "style.safetensors",
                       "components": "text_encoder,text_encoder_2,unet,refiner"})).steps

    assert "download:refiner" in steps
    assert {name: step.params["component"] for name, step in steps.items()
            if name.startswith("merge:")} == {
        f"merge:{part}": part for part in ("text_encoder", "text_encoder_2", "unet")}


@pytest.mark.parametrize("words, encoders", [
    ({}, {"text_encoder"}),
    ({"model": "sdxl-base", "components": "text_encoder,text_encoder_2,unet,refiner"},
     {"text_encoder", "text_encoder_2"}),
])
def test_an_embedding_changes_the_text_encoders_and_the_tokenizer_alone(words, encoders):
    found = {words.get("embedding"): plan(load(words)).steps for words in (
        words, {**words, "embedding": "mystyle.safetensors"})}
    without, steps = found.values()

    embeds = {name for name in steps if name.startswith("embed:")}
    assert embeds == {f"embed:{part}" for part in (*encoders, "resources")}
    assert steps.keys() - embeds == without.keys()
    changed = {name for name in without if steps[name] != without[name]}
    assert {name.partition(":")[2] for name in changed} <= {*encoders, ""}
    assert steps["bundle"].inputs["resources"] == From("embed:resources")


def test_originals_are_those_of_the_checkpoint_with_its_loras():
    steps = plan(load({"lora": "style.safetensors"})).steps

    assert steps["originals"].inputs["unet"] == From("merge:unet")
    assert steps["originals"].inputs["text_encoder"] == From("merge:text_encoder")
    assert steps["originals"].inputs["vae_decoder"] == From("download:vae_decoder")


def test_originals_know_of_nothing_that_is_done_to_the_bundle():
    one, other = (plan(load(words)).steps["originals"] for words in (
        {"quant": "none", "chunk": "1", "prompt": "a fox", "count": "4"},
        {"quant": "2", "attention": "split_einsum", "target": "iOS18", "batch": "1"},
    ))

    assert one == other


def test_a_bundle_that_cannot_draw_has_no_pictures():
    steps = plan(load({"components": "text_encoder,unet"})).steps

    assert not {"originals", "pictures"} & steps.keys()


@pytest.mark.parametrize("kind", STAGES)
def test_every_stage_brings_what_a_stage_must(kind):
    found = stage(kind)

    assert isinstance(found.version, int)
    assert isinstance(found.memory, Memory)
    assert isinstance(found.time, Time)
    assert found.summary
    assert isinstance(found, BundleStage) or found.gives


def test_every_file_of_a_stage_is_in_the_order_of_stages():
    files = {path.stem for path in Path(steps.__path__[0]).glob("[!_]*.py")}

    assert files == set(STAGES)


def step_of(**changed):
    return Step(kind="palettize", component="unet", params={"nbits": 6}, **changed)


@pytest.fixture
def step_with_tool(monkeypatch, tmp_path):
    """A step whose only tool is a package of the tests, in version 1.0, and where that lies."""
    class Tooled(BundleStage):
        tools = ("sdbuild-test-tool",)
        params = inputs = run = None

    module = ModuleType("sdbuild.steps.tooled")
    module.STAGE = Tooled()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.syspath_prepend(str(tmp_path))
    put_tool(tmp_path, "1.0", changed_s=1)
    return Step(kind="tooled"), tmp_path


def put_tool(folder, version, changed_s, name="sdbuild-test-tool"):
    for old in folder.iterdir():
        (old / "METADATA").unlink()
        old.rmdir()
    place = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    place.mkdir()
    (place / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    os.utime(folder, (changed_s, changed_s))


def test_an_upgrade_while_a_build_runs_is_seen(step_with_tool):
    step, folder = step_with_tool
    assert tool_versions(step) == {"sdbuild-test-tool": "1.0"}

    put_tool(folder, "1.1", changed_s=2)

    assert tool_versions(step) == {"sdbuild-test-tool": "1.1"}


def test_the_metadata_of_a_tool_is_read_once(step_with_tool, monkeypatch):
    """Reading it takes milliseconds, and a build with nothing to do asks hundreds of times."""
    step, _ = step_with_tool
    asked, version = [], metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: asked.append(name) or version(name))

    assert tool_versions(step) == tool_versions(step)
    assert asked == ["sdbuild-test-tool"]


@pytest.mark.parametrize("lower", ["once", "direct"])
def test_the_keys_of_a_plan_are_those_of_another_build_of_torch_and_not_of_another_torch(
    lower, tmp_path, monkeypatch,
):
    """`2.13.0+cpu` and `2.13.0+cu130` are for Linux what `2.13.0` is for a Mac."""
    monkeypatch.syspath_prepend(str(tmp_path))
    steps = plan(load({"lower": lower, "compiler": "portable"})).steps.values()
    versions = ("2.13.0", "2.13.0+cpu", "2.13.0+cu130", "2.13.1", "2.13.1+cpu")

    keys = {}
    for number, version in enumerate(versions):
        put_tool(tmp_path, version, changed_s=number, name="torch")
        keys[version] = {s.name: key(ingredients(s, dict.fromkeys(s.inputs, "d1"), {}))
                         for s in steps}

    assert keys["2.13.0"] == keys["2.13.0+cpu"] == keys["2.13.0+cu130"]
    assert keys["2.13.1"] == keys["2.13.1+cpu"]
    changed = {name for name in keys["2.13.0"] if keys["2.13.0"][name] != keys["2.13.1"][name]}
    with_torch = {"trace", "parity", "originals", "pictures",
                  "lower" if lower == "once" else "convert"}
    assert changed == {name for name in keys["2.13.0"] if name.partition(":")[0] in with_torch}


def test_the_key_of_a_step_is_pinned(monkeypatch):
    monkeypatch.setattr("sdbuild.engine.step.installed", lambda name: "1.0")

    found = ingredients(step_of(inputs={"package": From("convert:unet")}), {"package": "d1"}, {})

    assert key(found) == "2c57d10d34e5942889e9ad3a21d40b5f"


@pytest.mark.parametrize("part, value", [
    ("params", {"nbits": 4}), ("inputs", {"package": "d2"}), ("version", 99),
    ("tools", {"numpy": "9"}), ("schema", 2), ("source", {"unet/config.json": "d3"}),
    ("kind", "chunk"),
])
def test_a_key_changes_with_each_ingredient(part, value):
    found = ingredients(step_of(), {"package": "d1"}, {})

    assert key(found | {part: value}) != key(found)


def test_a_key_does_not_depend_on_the_place_of_the_checkpoint():
    one = plan(load({"model": "tiny-emoji", "source": "here"})).steps["download:unet"]
    other = plan(load({"model": "tiny-emoji", "source": "there"})).steps["download:unet"]

    assert one != other
    assert ingredients(one, {}, {"f": "d"}) == ingredients(other, {}, {"f": "d"})


def test_steps_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        step_of().kind = "chunk"


def test_bits_on_average_are_allocated_from_one_calibration_whatever_their_number():
    def params(words):
        return {name: step.params for name, step in plan(load(words)).steps.items()}

    four, three = params({"quant": "4.0"}), params({"quant": "3.0"})

    assert list(four) == list(three)
    assert {name for name in four if four[name] != three[name]} == {
        "allocate:text_encoder", "allocate:unet", "bundle"}
    assert not {"palettize:unet", "palettize:text_encoder"} & four.keys()
    assert {"calibrate:unet", "rate:unet", "assign:unet", "calibrate:text_encoder"} <= four.keys()


def test_a_denoiser_is_calibrated_on_the_embeddings_of_its_text_encoders():
    steps = plan(load({"quant": "4.0", "model": "sdxl-base"})).steps

    assert {i.step for i in steps["calibrate:unet"].inputs.values()} == {
        "download:unet", "download:text_encoder", "download:text_encoder_2", "download:resources"}
    assert {i.step for i in steps["calibrate:text_encoder_2"].inputs.values()} == {
        "download:text_encoder_2", "download:resources"}


def test_equal_bits_know_nothing_of_calibration():
    words = {"quant": "6"}

    before = {name: step.params for name, step in plan(load(words)).steps.items()}

    assert before["palettize:unet"] == {"nbits": 6}
    assert before["bundle"]["components"]["unet"]["nbits"] == 6
    assert not [name for name in before if name.partition(":")[0] in (
        "calibrate", "rate", "allocate", "assign")]
