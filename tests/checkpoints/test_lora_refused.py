"""LoRA files that cannot be merged are refused by one error that names what is wrong."""

import json
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdbuild.base.errors import SDBuildError, SourceError
from sdbuild.checkpoints.files import Files
from sdbuild.checkpoints.loras import lora
from sdbuild.engine.sources import Checkpoints
from sdbuild.engine.step import Step
from sdbuild.recipe.sources import Source
from sdbuild.store import Store
from tests.loras import (
    CONV,
    LAYERS,
    LINEAR,
    LIST,
    checkpoint,
    factors,
    kohya,
    merge,
    network,
    peft,
    save,
    weights,
)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


A, B = torch.ones(4, 64), torch.ones(64, 4)
FLAT = "lora_unet_" + LINEAR.replace(".", "_")
PAIR = {f"{FLAT}.lora_down.weight": A, f"{FLAT}.lora_up.weight": B}
SHAPES = {name: tuple(tensor.shape) for name, tensor in weights().items()}


def refusal(path, tensors, metadata=None):
    file = save(path / "l.safetensors", tensors, metadata)
    with pytest.raises(SourceError) as error:
        lora.matched(str(file), lora.read(file).updates.get("unet", []), SHAPES)
    return error.value.message


@pytest.mark.parametrize(("tensors", "what"), [
    ({"lora_te3_x.lora_down.weight": A}, "changes T5"),
    ({"transformer.blocks.0.lora_A.weight": A}, "is made for a transformer"),
    ({"lora_unet_double_blocks_0_img_mlp_0.lora_down.weight": A}, "is made for a transformer"),
    ({"diffusion_model.single_blocks.0.linear1.lora_A.weight": A}, "is made for a transformer"),
    ({f"{FLAT}.on_input": A, f"{FLAT}.weight": A}, "is an (IA)3, which is not supported"),
    ({f"{FLAT}.oft_blocks": A}, "is an OFT, which is not supported"),
    ({f"{FLAT}.a1.weight": A}, "is a GLoRA, which is not supported"),
    ({"emb_params": A}, "is a textual inversion"),
    ({"<cat-toy>": torch.ones(768)}, "is a textual inversion"),
    ({"bundle_emb.ohwx.string_to_param.*": A}, "is a textual inversion"),
    ({"something.weight": A}, "has tensors that are no part of a LoRA"),
    ({f"{FLAT}.lora_down.weight": A}, "lacks the other half of"),
    ({f"{FLAT}.hada_w1_a": B}, "lacks the other half of"),
    ({f"{FLAT}.lokr_w1": A}, "lacks the other half of"),
    ({f"{FLAT}.dora_scale": A}, "lacks the factors that belong to"),
    (PAIR | {f"{FLAT}.diff": torch.ones(64, 64)}, "changes a layer in two ways"),
    (PAIR | {f"unet.{LINEAR}.lora_A.weight": A}, "has two tensors for the same"),
    ({f"unet.{LINEAR}.lora_A.{name}.weight": A for name in ("one", "two")},
     "has two tensors for the same, perhaps of two adapters"),
    (PAIR | {n.replace("down_blocks_0_attentions_0", "input_blocks_1_1"): t
             for n, t in PAIR.items()}, "changes a layer twice, under two names"),
    ({"lora_unet_mid_block_x.lora_down.weight": A, "lora_unet_mid_block_x.lora_up.weight": B},
     "changes layers that the checkpoint does not have"),
    ({f"{FLAT}.lora_down.weight": torch.ones(4, 8), f"{FLAT}.lora_up.weight": B},
     "is made for another checkpoint: its shapes do not fit"),
    ({f"{FLAT}.lora_down.weight": A, f"{FLAT}.lora_up.weight": torch.ones(64, 3)},
     "is made for another checkpoint: its shapes do not fit"),
    (PAIR | {f"{FLAT}.dora_scale": torch.ones(63)}, "its shapes do not fit"),
    ({f"{FLAT}.lora_down.weight": torch.ones(()), f"{FLAT}.lora_up.weight": B},
     "has tensors without rows or columns"),
    ({f"{FLAT}.lora_down.weight": torch.ones(0, 64), f"{FLAT}.lora_up.weight": torch.ones(64, 0)},
     "has tensors without rows or columns"),
])
def test_a_file_that_cannot_be_merged_is_refused_and_its_tensors_are_named(
    tmp_path, tensors, what
):
    message = refusal(tmp_path, tensors)

    assert what in message
    assert any(name in message for name in tensors)


def test_an_adapter_of_peft_without_the_file_beside_it_is_refused(tmp_path):
    message = refusal(tmp_path, {f"base_model.model.{LINEAR}.lora_A.weight": A})

    assert "whose alpha is in adapter_config.json beside it, and there is no such file" in message


def test_a_name_that_fits_two_layers_is_refused(tmp_path):
    file = save(tmp_path / "l.safetensors", PAIR)
    shapes = {f"{LINEAR}.weight": (64, 64), f"{LINEAR.replace('0.att', '0_att')}.weight": (64, 64)}

    with pytest.raises(SourceError, match="names that fit several layers"):
        lora.matched("l", lora.read(file).updates["unet"], shapes)


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), -float("inf")])
def test_an_alpha_that_is_no_number_is_refused(tmp_path, alpha):
    message = refusal(tmp_path, PAIR | {f"{FLAT}.alpha": torch.tensor(alpha)})

    assert f"{FLAT}.alpha is {alpha}, expected a number" in message


def test_an_alpha_that_overflows_the_sum_is_refused(tmp_path):
    file = save(tmp_path / "l.safetensors",
                PAIR | {f"{FLAT}.alpha": torch.tensor(1e300, dtype=torch.float64)})

    with pytest.raises(SourceError, match="with the LoRA it is more than F32 holds"):
        merge(checkpoint(tmp_path / "base"), tmp_path / "out", [(file, 1)])


EVIL = "(a+)+" * 3 + "$"


@pytest.mark.parametrize(("said", "what"), [
    ("[]", "a list, expected a JSON object"), ("3", "expected a JSON object"),
    ("{", "not JSON"), ("[" * 3000, "nested more than"), ('{"unet.lora_alpha": NaN}', "finite"),
    ('{"unet.lora_alpha": "8"}', "lora_alpha is '8', expected a number"),
    ('{"unet.lora_alpha": true}', "lora_alpha is True, expected a number"),
    ('{"unet.lora_alpha": 1e300}', "lora_alpha is 1e+300, expected a number"),
    ('{"unet.r": 0}', "r is 0, expected an integer from 1"),
    ('{"unet.alpha_pattern": [1]}', "alpha_pattern is a list, expected an object"),
    ('{"unet.alpha_pattern": {"x": null}}', "x is missing, expected a number"),
    ('{"unet.use_rslora": "no"}', "use_rslora is 'no', expected true or false"),
    ('{"unet.use_dora": true}', "is a DoRA by its metadata, and lacks the magnitudes of"),
    (json.dumps({"unet.alpha_pattern": {EVIL: 1}}), "expected the name of a layer, or its end"),
    (json.dumps({"unet.rank_pattern": {".*to_q": 1}}), "expected the name of a layer, or its end"),
])
def test_metadata_that_diffusers_does_not_write_is_refused(tmp_path, said, what):
    assert what in refusal(tmp_path, PAIR, {"lora_adapter_metadata": said})


def test_many_names_and_long_ones_are_shown_in_part(tmp_path):
    message = refusal(tmp_path, {f"x{i}{'y' * 500}": A for i in range(30)})

    assert "and 22 more" in message
    assert len(message) < 3000


def test_what_is_ignored_is_in_the_facts(tmp_path):
    name = "bundle_emb.ohwx.string_to_param.*"
    file = save(tmp_path / "l.safetensors", PAIR | {name: torch.ones(2, 64)})

    _, facts = merge(checkpoint(tmp_path / "base"), tmp_path / "out", [(file, 1)])

    assert facts["ignored"] == [name]


def test_what_peft_writes_beside_a_file_is_part_of_its_identity(tmp_path):
    file = save(tmp_path / "adapter_model.safetensors", PAIR)
    alone = Files([str(file)]).identity("loras", str)

    (tmp_path / "adapter_config.json").write_text("{}")

    beside = Files([str(file)]).identity("loras", str)
    assert alone == {"0": str(file)}
    assert beside == alone | {"0/adapter_config.json": str(tmp_path / "adapter_config.json")}


def kept(folder, name="pytorch_lora_weights.safetensors"):
    folder.mkdir()
    return save(folder / name, PAIR)


@pytest.mark.parametrize("name", [
    "adapter_model.safetensors", "pytorch_lora_weights.safetensors",
])
def test_a_folder_that_a_lora_was_saved_into_is_the_file_in_it(tmp_path, name):
    file = kept(tmp_path / "lora", name)

    assert Files([str(tmp_path / "lora")]).places == (str(file),)


def test_a_folder_without_a_lora_of_a_known_name_says_which_files_are_in_it(tmp_path):
    kept(tmp_path / "lora", "mine.safetensors")

    with pytest.raises(SourceError, match=r"lora: a folder, .* there is 'mine\.safetensors' in it"):
        Files([str(tmp_path / "lora")])


def test_one_of_several_files_that_is_not_there_may_be_half_of_a_name_with_a_comma(tmp_path):
    save(tmp_path / "b.safetensors", PAIR)

    with pytest.raises(SourceError, match="a: there is no such file") as error:
        Files([str(tmp_path / "a"), str(tmp_path / "b.safetensors")])
    assert "commas separate several" in error.value.hint


@pytest.mark.parametrize("content, what", [
    (b"<!DOCTYPE html><html>", "a web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
    (None, "lacks the other half of"),
])
def test_a_broken_lora_is_found_when_sources_are_reached(tmp_path, store, content, what):
    file = save(tmp_path / "l.safetensors", {f"{FLAT}.lora_down.weight": A})
    if content:
        file.write_bytes(content)
    step = Step(kind="merge", component="unet", reads=("loras",),
                source=Source(places=(str(file),), are_files=True))

    with pytest.raises(SourceError, match=what) as error:
        Checkpoints(store).reach(step, {})
    assert str(file) in error.value.message


def test_a_lora_for_prompts_of_another_width_is_reported_as_of_another_generation(tmp_path):
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    file = save(tmp_path / "l.safetensors", {
        f"unet.{layer}.lora_A.weight": torch.ones(4, 1024),
        f"unet.{layer}.lora_B.weight": torch.ones(320, 4),
    })

    with pytest.raises(SourceError) as error:
        lora.matched("l", lora.read(file).updates["unet"], {f"{layer}.weight": (320, 768)})
    assert ("seems to be made for Stable Diffusion 2: its prompts are 1024 wide, the checkpoint's "
            "are 768") in error.value.message
    assert f"{layer}.weight [320, 768]: " in error.value.message
    assert "[4, 1024]" in error.value.message


KNOWN = [*kohya(factors(network(), LAYERS, 2), 1), *peft(factors(network(), LAYERS, 2)),
         f"{FLAT}.hada_w1_a", f"{FLAT}.lokr_w2_b", f"{FLAT}.dora_scale", f"{FLAT}.diff",
         f"lora_unet_{CONV.replace('.', '_')}.lora_mid.weight", "bundle_emb.x", "emb_params",
         f"base_model.model.{LIST}.lora_A.weight", f"lora_unet_{LIST}.alpha"]
NAMES = st.one_of(st.sampled_from(KNOWN), st.text(max_size=20), st.builds(
    lambda name, extra, at: name[:at] + extra + name[at:], st.sampled_from(KNOWN),
    st.text(max_size=3), st.integers(0, 60)))
SIDES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 64, 96, 1 << 40]), max_size=5)
TYPES = st.sampled_from(["F32", "F16", "BF16", "F64", "I64", "BOOL", "F8_E4M3", "X"])
JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["unet.r", "unet.lora_alpha", "unet.alpha_pattern",
                                         "unet.use_dora", "r", "a.b"]), inner, max_size=4))
METADATA = st.one_of(
    st.none(), JSON, st.fixed_dictionaries({"lora_adapter_metadata": JSON.map(json.dumps)}))


@st.composite
def files(draw):
    header, end = {}, 0
    for name in draw(st.lists(NAMES, max_size=6)):
        shape, kind = draw(SIDES), draw(TYPES)
        size = {"F32": 4, "F64": 8, "I64": 8, "BOOL": 1, "F8_E4M3": 1}.get(kind, 2)
        for side in shape:
            size *= side
        size = min(size, 4096)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    said = draw(METADATA)
    if said is not None:
        header["__metadata__"] = said
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    data = bytearray(struct.pack("<Q", len(text)) + text + draw(st.binary(max_size=8)).ljust(end))
    for _ in range(draw(st.integers(0, 2))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


def merged_or_refused(folder, content):
    """Reads the file, matches it and makes every tensor that it changes."""
    file = folder / "fuzzed.safetensors"
    file.write_bytes(content)
    try:
        found = lora.read(file)
        for updates in found.updates.values():
            for update in lora.matched(str(file), updates, SHAPES).values():
                update.delta.load()(0, 1)
    except SDBuildError:
        return


FUZZ = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@given(files())
@settings(max_examples=200, **FUZZ)
def test_no_file_gives_a_traceback(tmp_path_factory, content):
    merged_or_refused(tmp_path_factory.getbasetemp(), content)


@pytest.mark.slow
def test_no_file_of_very_many_gives_a_traceback(tmp_path, request):
    """Of 5,000 every tenth, or as many as `--every` asks for."""

    @settings(max_examples=5_000 // (request.config.getoption("every") or 10), **FUZZ)
    @given(files())
    def merge(content):
        merged_or_refused(tmp_path, content)

    merge()
