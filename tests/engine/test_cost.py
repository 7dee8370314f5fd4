"""Estimates of a step's cost: from its own kind of record, or from the size of its network."""

import dataclasses
import json
import platform
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from sdbuild.checkpoints import normalize
from sdbuild.engine.build import Builder
from sdbuild.engine.plan import plan
from sdbuild.engine.stage import NetworkSize, stage
from sdbuild.recipe.project import BUILT_IN
from sdbuild.recipe.recipe import load
from sdbuild.store import Record, Store
from tests.tiny_checkpoints import write_checkpoint

UNET = "unet/diffusion_pytorch_model.safetensors"


HERE = platform.node()


def builder(cache, **words):
    return Builder(plan(load({"model": "tiny-emoji"} | words)), Store(cache))


def expected(cache, name, **words):
    return builder(cache, **words).costs.expected(name)


def build(cache, content, peak_bytes=1000, host=HERE, **words):
    """Puts records of a U-Net's steps up to lower into the store, as if they had been made.

    Args:
        content: makes what the steps give differ.
    """
    made = builder(cache, **words)
    for name in ("download:unet", "trace:unet", "lower:unet"):
        state = made.state(name)
        folder = cache / "new"
        folder.mkdir(parents=True)
        if name == "download:unet":
            checkpoint = made.checkpoints.resolve(state.step.source)
            found = normalize.architecture_of(checkpoint, state.step.reads, state.step.params)
            text = json.dumps(found, sort_keys=True, separators=(",", ":"))
            (folder / "architecture.json").write_text(text)
            shutil.copy(BUILT_IN / "tiny-emoji" / UNET, folder / "weights.safetensors")
        else:
            (folder / "content").write_text(f"{name} {content}")
        made.store.put(folder, Record(
            key=state.key, step=name, ingredients=state.ingredients, tree=(), seconds=7.0,
            peak_bytes=peak_bytes, made_at="2026-01-01", host=host,
        ))
        shutil.rmtree(folder)


def build_all(cache, **words):
    """Puts records of all steps of a bundle into the store, as if they had been made."""
    made = builder(cache, **words)
    steps = made.plan.needed_by("bundle")
    read = {(f.step, f.path) for step in steps for f in step.inputs.values() if f.path}
    for step in steps:
        state, folder = made.state(step.name), cache / "new"
        for path in ["content", *(path for name, path in read if name == step.name)]:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(f"{step.name} {path} {state.key}")
        if step.kind == "download" and step.name != "download:resources":
            checkpoint = made.checkpoints.resolve(step.source)
            found = normalize.architecture_of(checkpoint, step.reads, step.params)
            text = json.dumps(found, sort_keys=True, separators=(",", ":"))
            (folder / "architecture.json").write_text(text)
        made.store.put(folder, Record(
            key=state.key, step=step.name, ingredients=state.ingredients, tree=(), seconds=7.0,
            peak_bytes=1000, made_at="2026-01-01", host=HERE,
        ))
        shutil.rmtree(folder)


@pytest.fixture
def own_checkpoint(tmp_path):
    return Path(shutil.copytree(BUILT_IN / "tiny-emoji", tmp_path / "checkpoint"))


def test_what_was_measured_is_expected(tmp_path):
    build(tmp_path, "a")

    found = expected(tmp_path, "lower:unet")

    assert dataclasses.astuple(found) == (
        7.0, 1000, True, 1100, 1100, False, len("lower:unet a"))


def test_what_another_machine_measured_tells_the_time_and_refuses_nothing(tmp_path):
    build(tmp_path, "a", peak_bytes=10**13, host="a-large-server")
    there, unknown = expected(tmp_path, "lower:unet"), expected(tmp_path / "new", "lower:unet")

    assert there.seconds == 7.0
    assert dataclasses.replace(there, seconds=unknown.seconds, is_estimate=True,
                               size_bytes=None) == unknown
    builder(tmp_path).refuse_too_large(["lower:unet"])


def test_of_two_machines_this_one_is_believed(tmp_path):
    build(tmp_path, "a", peak_bytes=10**13, host="a-large-server")
    build(tmp_path, "a", peak_bytes=2000)

    assert expected(tmp_path, "lower:unet").peak_bytes == 2000


def test_other_weights_of_the_architecture_cost_the_same(tmp_path, own_checkpoint):
    build(tmp_path / "cache", "a")
    path = own_checkpoint / UNET
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    found = expected(tmp_path / "cache", "lower:unet", source=str(own_checkpoint))

    assert (found.peak_bytes, found.is_measured) == (1000, True)


def test_another_architecture_is_not_what_was_measured(tmp_path, own_checkpoint):
    build(tmp_path / "cache", "a")
    path = own_checkpoint / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layers_per_block": 3}))

    found = expected(tmp_path / "cache", "lower:unet", source=str(own_checkpoint))

    assert (found.is_measured, found.is_estimate) == (False, True)


@pytest.mark.parametrize("words", [{"attention": "split_einsum"}, {"size": "256"},
                                   {"target": "iOS17"}])
def test_a_parameter_of_any_step_before_makes_it_an_estimate_with_the_nearest_time(
    tmp_path, words,
):
    build(tmp_path, "a")

    found = expected(tmp_path, "lower:unet", **words)

    assert (found.seconds, found.is_measured) == (7.0, False)


def test_of_several_measurements_the_largest_counts(tmp_path):
    """A step whose versions of tools differ has another key and the same cost."""
    build(tmp_path, "a", peak_bytes=1000)
    store = Store(tmp_path)
    record = next(r for r in store.records() if r.step == "lower:unet")
    folder = tmp_path / "new"
    folder.mkdir()
    store.put(folder, dataclasses.replace(record, key="0" * 32, peak_bytes=3000))

    assert expected(tmp_path, "lower:unet").peak_bytes == 3000


def test_an_older_version_of_the_step_tells_nothing(tmp_path):
    build(tmp_path, "a")
    store = Store(tmp_path)
    record = next(r for r in store.records() if r.step == "lower:unet")
    store.forget(record.key)
    folder = tmp_path / "new"
    folder.mkdir()
    old = dict(record.ingredients) | {"version": 1}
    store.put(folder, dataclasses.replace(record, key="0" * 32, ingredients=old))

    assert not expected(tmp_path, "lower:unet").is_measured


@pytest.mark.parametrize("component, file, prefixes", [
    ("text_encoder", "text_encoder/model.safetensors", ("",)), ("unet", UNET, ("",)),
    ("vae_decoder", "vae/diffusion_pytorch_model.safetensors", ("decoder.", "post_quant_conv.")),
])
def test_an_estimate_grows_with_the_networks_parameters(tmp_path, component, file, prefixes):
    base = expected(tmp_path, f"convert:{component}", lower="direct",
                    source=str(tmp_path / "none")).peak_bytes

    found = expected(tmp_path, f"convert:{component}", lower="direct").peak_bytes

    tensors = load_file(BUILT_IN / "tiny-emoji" / file)
    assert found - base == 7 * sum(t.size for n, t in tensors.items() if n.startswith(prefixes))


def test_a_checkpoint_that_is_not_here_gives_an_estimate_all_the_same(tmp_path):
    found = expected(tmp_path, "lower:unet", source=str(tmp_path / "none"))

    assert found.peak_bytes > 0
    assert (found.seconds, found.is_measured) == (None, False)


def unet_of(folder, parameters, tensors):
    """A folder with a U-Net of so many parameters in so many tensors, none of which is written."""
    (folder / "unet").mkdir(parents=True)
    shutil.copy(BUILT_IN / "tiny-emoji" / "unet" / "config.json", folder / "unet")
    counts = [parameters // tensors] * tensors
    starts = [2 * n * counts[0] for n in range(tensors + 1)]
    header = json.dumps({
        f"{n}.weight": {"dtype": "F16", "shape": [count], "data_offsets": starts[n:n + 2]}
        for n, count in enumerate(counts)
    }).encode()
    with (folder / UNET).open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 2 * sum(counts))
    return folder


@pytest.mark.parametrize("parameters, tensors, measured", [
    (2_567_500_000, 1680, {"trace": 34.7, "lower": 54.0, "convert": 31.5}),
    (865_900_000, 686, {"palettize": 21.1, "chunk": 2.05, "compile": 0.19}),
    (2_880_068, 324, {"trace": 7.0, "lower": 7.0, "convert": 0.4, "palettize": 5.9}),
], ids=["Stable Diffusion XL", "Stable Diffusion 2.1", "tiny-emoji"])
def test_an_estimated_time_is_near_what_was_measured_of_real_sizes(
    tmp_path, parameters, tensors, measured,
):
    """Of two cores that did nothing else: docs/benchmarks.md, and runs while it was written."""
    source = unet_of(tmp_path / "source", parameters, tensors)
    made = builder(tmp_path / "cache", source=str(source))

    for kind, seconds in measured.items():
        found = made.costs.expected(f"{kind}:unet")
        assert found.is_estimate
        assert seconds / 2 < found.seconds < seconds * 2, kind


def test_pictures_take_longer_the_more_steps_and_pixels_they_have(tmp_path):
    params = builder(tmp_path).plan.steps["originals"].params
    size = NetworkSize(all=866_000_000, tensors=686)
    time = stage("originals").time_of(params | {
        "width_px": 512, "height_px": 512, "requests": [{"steps": 20, "count": 1}] * 4})

    # docs/benchmarks.md: eager PyTorch takes 10.6 s for a step of this U-Net
    assert 0.8 < time.at(size) / (4 * 20 * 10.6) < 1.25


def test_the_time_of_a_bundle_is_known_from_another_bundle(tmp_path):
    build_all(tmp_path)

    assert expected(tmp_path, "bundle", quant=4).seconds == 7.0


def test_a_record_that_does_not_say_what_it_was_made_of_tells_no_cost(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "content").write_text("")
    Store(tmp_path).put(tmp_path / "new", Record(
        key="1" * 32, step="trace:unet", ingredients={}, tree=(), seconds=7.0, peak_bytes=1,
        made_at="2026-01-01", host=HERE,
    ))

    found = expected(tmp_path, "trace:unet")
    assert (found.is_measured, found.is_estimate) == (False, True)


@pytest.fixture(scope="module")
def networks():
    """The elements of each tensor of the built-in model's networks."""
    return [[tensor.size for tensor in load_file(path).values()]
            for path in (BUILT_IN / "tiny-emoji").rglob("*.safetensors")]


def test_what_draws_needs_memory_for_the_largest_network_alone(tmp_path, networks):
    largest = max(map(sum, networks))

    assert expected(tmp_path / "cache", "pictures").peak_bytes == int(2e9 + 4 * largest)


def test_originals_need_memory_for_the_largest_tensor_and_each_pixel(tmp_path, networks):
    largest = max(max(networks, key=sum))

    found = expected(tmp_path / "cache", "originals").peak_bytes
    assert found == 600_000_000 + 4800 * 128 * 128 + 4 * largest


def test_a_table_that_is_cut_while_it_is_copied_counts_for_nothing(tmp_path):
    folder = write_checkpoint(tmp_path / "sd3", "sd3.5-medium")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('family = "sd3"\nsource = "sd3"\nsize = 128\nquant = 6\n'
                      'components = ["transformer"]\n')
    tensors = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    table = tensors.pop("pos_embed.pos_embed")
    largest = max(tensor.size for tensor in tensors.values())

    found = expected(tmp_path / "cache", "palettize:transformer", model=str(recipe))

    assert table.size > largest
    assert found.least_bytes == stage("palettize").memory.at(NetworkSize(largest=largest))


XL_UNET = NetworkSize(all=2_567_463_684, largest=29_491_200, tensors=1680)
XL_TEXT = NetworkSize(all=694_659_840, largest=63_242_240, tensors=517)
CONTROLNET = NetworkSize(all=361_279_120, largest=14_745_600, tensors=340)
SD3 = NetworkSize(all=2_243_171_520, largest=21_233_664, tensors=908)


@pytest.mark.parametrize("kind, network, measured", [
    ("download", XL_TEXT, 41_100_000), ("trace", XL_UNET, 532_500_000),
    ("trace", XL_TEXT, 365_200_000), ("lower", XL_UNET, 487_200_000),
    ("lower", XL_TEXT, 384_700_000), ("convert", XL_UNET, 77_200_000),
    ("palettize", XL_UNET, 192_600_000), ("chunk", XL_UNET, 63_200_000),
    ("compile", XL_UNET, 55_200_000), ("lower", CONTROLNET, 537_400_000),
    ("trace", CONTROLNET, 402_200_000), ("trace", SD3, 484_900_000),
    ("lower", SD3, 420_200_000), ("convert", SD3, 70_700_000), ("chunk", SD3, 47_800_000),
])
def test_no_step_was_measured_with_more_memory_than_is_reserved_for_it(kind, network, measured):
    component = "controlnet" if network is CONTROLNET else "another"

    found = stage(kind).memory_of({"component": component, "lower": "once"})

    assert found.at(network) >= measured
