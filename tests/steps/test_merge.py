"""LoRAs merged into weights compute what the LoRA beside the layer computes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from sdbuild.errors import SourceError
from sdbuild.step import Job, stage

TINY_EMOJI = Path(__file__).parent.parent.parent / "recipes" / "tiny-emoji"
LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
LIST = "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
CONV = "up_blocks.1.resnets.0.conv1"
PROJECTION = "up_blocks.1.attentions.0.proj_in"
LAYERS = (LINEAR, LIST, CONV, PROJECTION)
CLIP = "text_model.encoder.layers.1.mlp.fc1"


def checkpoint(folder, part="unet", dtype=torch.float32):
    folder.mkdir()
    tensors = load_file(next((TINY_EMOJI / part).glob("*.safetensors")))
    save_file({n: t.to(dtype) for n, t in tensors.items()}, folder / "weights.safetensors")
    (folder / "architecture.json").write_text("{}")
    return folder


def merge(base, output, loras, component="unet"):
    output.mkdir()
    facts = stage("merge").run(Job(
        params={"component": component, "strengths": [s for _, s in loras]},
        inputs={"checkpoint": base}, output=output, places=[str(p) for p, _ in loras],
    ))
    return load_file(output / "weights.safetensors"), facts


def network():
    config = json.loads((TINY_EMOJI / "unet" / "config.json").read_text())
    return UNet2DConditionModel.from_config(config).eval()


def factors(net, layers, rank, seed=1):
    """{layer: (down, up)} as modules of the layer's own kind, of random weights."""
    torch.manual_seed(seed)
    made = {}
    for name in layers:
        layer = net.get_submodule(name)
        if isinstance(layer, nn.Linear):
            down = nn.Linear(layer.in_features, rank, bias=False)
            up = nn.Linear(rank, layer.out_features, bias=False)
        else:
            down = nn.Conv2d(layer.in_channels, rank, layer.kernel_size, layer.stride,
                             layer.padding, bias=False)
            up = nn.Conv2d(rank, layer.out_channels, 1, bias=False)
        made[name] = (down, up)
    return made


def beside(net, factors, scale):
    """Lets each layer add its LoRA's output to its own."""
    for name, (down, up) in factors.items():
        def add(module, inputs, output, down=down, up=up):
            return output + scale * up(down(inputs[0]))
        net.get_submodule(name).register_forward_hook(add)
    return net


def kohya(factors, alpha, prefix="lora_unet_"):
    tensors = {}
    for name, (down, up) in factors.items():
        flat = prefix + name.replace(".", "_")
        tensors |= {f"{flat}.lora_down.weight": down.weight, f"{flat}.lora_up.weight": up.weight,
                    f"{flat}.alpha": torch.tensor(float(alpha))}
    return tensors


def peft(factors, prefix="unet."):
    return {f"{prefix}{name}.lora_{letter}.weight": part.weight
            for name, pair in factors.items() for letter, part in zip("AB", pair, strict=True)}


def older(factors):
    return {f"unet.{name}.lora.{side}.weight": part.weight
            for name, pair in factors.items()
            for side, part in zip(("down", "up"), pair, strict=True)}


def oldest(factors):
    """Attention alone, in processors, without a prefix; `to_out` without its number."""
    return {
        f"{name.removesuffix('.0').rpartition('.')[0]}.processor."
        f"{name.removesuffix('.0').rpartition('.')[2]}_lora.{side}.weight": part.weight
        for name, pair in factors.items() for side, part in zip(("down", "up"), pair, strict=True)
    }


def save(path, tensors, metadata=None):
    save_file({n: t.detach().contiguous() for n, t in tensors.items()}, path, metadata)
    return path


def inputs(seed=3):
    rng = torch.Generator().manual_seed(seed)
    return (torch.randn(1, 4, 16, 16, generator=rng), 321,
            torch.randn(1, 77, 64, generator=rng))


def computed(net):
    with torch.inference_mode():
        return net(*inputs(), return_dict=False)[0]


def loaded(tensors):
    net = network()
    net.load_state_dict({n: t.float() for n, t in tensors.items()})
    return net


@pytest.mark.parametrize(("write", "layers", "alpha"), [
    (lambda f: kohya(f, 2), LAYERS, 2), (peft, LAYERS, 4), (older, LAYERS, 4),
    (oldest, LAYERS[:2], 4),
])
def test_a_merged_network_computes_what_the_lora_beside_it_does(tmp_path, write, layers, alpha):
    base = checkpoint(tmp_path / "base")
    net = loaded(load_file(base / "weights.safetensors"))
    plain = computed(net)
    made = factors(net, layers, rank=4)
    file = save(tmp_path / "l.safetensors", write(made))
    wanted = computed(beside(net, made, 0.8 * alpha / 4))

    tensors, facts = merge(base, tmp_path / "out", [(file, 0.8)])

    found = computed(loaded(tensors))
    assert facts["merged"] == [len(layers)]
    assert (wanted - plain).abs().max() > 1e-2
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)


def test_a_text_encoder_with_a_lora_computes_what_the_lora_beside_it_does(tmp_path):
    base = checkpoint(tmp_path / "base", "text_encoder")
    config = CLIPTextConfig(**json.loads((TINY_EMOJI / "text_encoder/config.json").read_text()))
    net = CLIPTextModel(config).eval()
    state = load_file(base / "weights.safetensors")
    net.load_state_dict({n.removeprefix("text_model."): t for n, t in state.items()}, strict=False)
    layer = CLIP.removeprefix("text_model.")
    made = factors(net, [layer], rank=2)
    named = {CLIP: made[layer]}
    file = save(tmp_path / "l.safetensors", kohya(named, 2, "lora_te_"))
    other = save(tmp_path / "p.safetensors", peft(named, "text_encoder."))
    beside(net, made, 1.5)
    ids = torch.arange(77)[None]

    tensors, _ = merge(base, tmp_path / "out", [(file, 1.5)], "text_encoder")
    same, _ = merge(base, tmp_path / "out2", [(other, 1.5)], "text_encoder")

    assert all(torch.equal(tensors[n], same[n]) for n in tensors)
    merged = CLIPTextModel(config).eval()
    merged.load_state_dict({n.removeprefix("text_model."): t for n, t in tensors.items()},
                           strict=False)
    with torch.inference_mode():
        torch.testing.assert_close(merged(ids).last_hidden_state, net(ids).last_hidden_state,
                                   rtol=0, atol=2e-5)


def test_a_convolution_in_three_factors_is_merged(tmp_path):
    base = checkpoint(tmp_path / "base")
    weight = load_file(base / "weights.safetensors")[f"{CONV}.weight"]
    out, inner = weight.shape[:2]
    rng = torch.Generator().manual_seed(5)
    down, up = torch.randn(3, inner, 1, 1, generator=rng), torch.randn(out, 3, 1, 1, generator=rng)
    mid = torch.randn(3, 3, 3, 3, generator=rng)
    flat = "lora_unet_" + CONV.replace(".", "_")
    file = save(tmp_path / "l.safetensors", {
        f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up,
        f"{flat}.lora_mid.weight": mid, f"{flat}.alpha": torch.tensor(1.5),
    })

    tensors, _ = merge(base, tmp_path / "out", [(file, 2)])

    delta = np.einsum("ap,pqhw,qi->aihw", up[:, :, 0, 0].double().numpy(), mid.double().numpy(),
                      down[:, :, 0, 0].double().numpy())
    wanted = weight.double().numpy() + 2 * 1.5 / 3 * delta
    np.testing.assert_allclose(tensors[f"{CONV}.weight"].numpy(), wanted, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_weight_keeps_its_type_and_is_rounded_once(tmp_path, dtype):
    base = checkpoint(tmp_path / "base", dtype=dtype)
    net = network()
    made = factors(net, [LINEAR], rank=4)
    file = save(tmp_path / "l.safetensors", peft(made))
    before = load_file(base / "weights.safetensors")

    tensors, _ = merge(base, tmp_path / "out", [(file, 0.5)])

    down, up = made[LINEAR]
    exact = before[f"{LINEAR}.weight"].double() + 0.5 * (up.weight.double() @ down.weight.double())
    name = f"{LINEAR}.weight"
    assert tensors[name].dtype == dtype
    assert (tensors[name] != exact.to(dtype)).float().mean() < 1e-3  # fp32 sums at ties
    torch.testing.assert_close(tensors[name].double(), exact, rtol=2**-7, atol=1e-6)
    assert all(torch.equal(t, before[n]) for n, t in tensors.items() if n != name)


def test_the_alpha_that_an_adapters_metadata_names_counts(tmp_path):
    base = checkpoint(tmp_path / "base")
    made = factors(network(), [LINEAR, LIST], rank=4)
    said = {"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn2.to_out.0": 2}}
    file = save(tmp_path / "l.safetensors", peft(made),
                {"lora_adapter_metadata": json.dumps(said)})
    same = save(tmp_path / "k.safetensors",
                kohya({LINEAR: made[LINEAR]}, 8) | kohya({LIST: made[LIST]}, 2))

    tensors, _ = merge(base, tmp_path / "a", [(file, 1)])

    wanted, _ = merge(base, tmp_path / "b", [(same, 1)])
    assert all(torch.equal(tensors[n], wanted[n]) for n in wanted)


def test_several_loras_are_all_merged(tmp_path):
    base = checkpoint(tmp_path / "base")
    net = loaded(load_file(base / "weights.safetensors"))
    files = []
    for seed, strength in ((1, 0.7), (2, -0.4)):
        made = factors(net, LAYERS, 4, seed)
        files.append((save(tmp_path / f"{seed}.safetensors", peft(made)), strength))
        beside(net, made, strength)

    tensors, facts = merge(base, tmp_path / "out", files)

    assert facts["merged"] == [4, 4]
    torch.testing.assert_close(computed(loaded(tensors)), computed(net), rtol=0, atol=5e-5)


def test_a_lora_for_the_unet_alone_leaves_the_text_encoder_as_it_is(tmp_path):
    base = checkpoint(tmp_path / "base", "text_encoder")
    file = save(tmp_path / "l.safetensors", peft(factors(network(), [LINEAR], 4)))

    merge(base, tmp_path / "out", [(file, 1)], "text_encoder")

    wanted = load_file(base / "weights.safetensors")
    found = load_file(tmp_path / "out" / "weights.safetensors")
    assert all(torch.equal(found[n], wanted[n]) for n in wanted)


A, B = torch.ones(4, 8), torch.ones(8, 4)


@pytest.mark.parametrize(("tensors", "what"), [
    ({"lora_te2_x.lora_down.weight": A}, "is made for Stable Diffusion XL"),
    ({"text_encoder_2.x.lora_A.weight": A}, "is made for Stable Diffusion XL"),
    ({"transformer.blocks.0.lora_A.weight": A}, "is made for a transformer"),
    ({"base_model.model.x.lora_A.weight": A}, "is an adapter as peft writes it"),
    ({"lora_unet_x.hada_w1_a": A}, "is of the kind LoHa"),
    ({"lora_unet_x.lokr_w1": A}, "is of the kind LoKr"),
    ({"lora_unet_x.dora_scale": A}, "is of the kind DoRA"),
    ({"lora_unet_x.diff": A}, "is of the kind full differences"),
    ({"something.weight": A}, "holds what is no part of a LoRA"),
    ({"lora_unet_mid_block_x.lora_down.weight": A}, "lacks the other half of"),
    ({"lora_unet_mid_block_x.lora_down.weight": A, "lora_unet_mid_block_x.lora_up.weight": B},
     "changes layers that the checkpoint does not have"),
    ({f"unet.{LINEAR}.lora_A.weight": A, f"unet.{LINEAR}.lora_B.weight": B},
     "is made for another checkpoint: its shapes do not fit"),
])
def test_a_lora_that_does_not_fit_is_refused_and_its_tensors_are_named(tmp_path, tensors, what):
    base = checkpoint(tmp_path / "base")
    file = save(tmp_path / "l.safetensors", tensors)

    with pytest.raises(SourceError) as error:
        merge(base, tmp_path / "out", [(file, 1)])

    assert what in error.value.message
    assert next(iter(tensors)) in error.value.message


def test_an_alpha_may_be_a_whole_number_and_a_matrix_may_not(tmp_path):
    base = checkpoint(tmp_path / "base")
    names = kohya(factors(network(), [LINEAR], 4), 2)
    whole = {n: t.detach().int() if n.endswith(".alpha") else t for n, t in names.items()}
    matrices = {n: t if n.endswith(".alpha") else t.detach().int() for n, t in names.items()}

    wanted, _ = merge(base, tmp_path / "a", [(save(tmp_path / "a.safetensors", names), 1)])
    found, _ = merge(base, tmp_path / "b", [(save(tmp_path / "b.safetensors", whole), 1)])

    assert all(torch.equal(found[n], wanted[n]) for n in wanted)
    with pytest.raises(SourceError, match=r"lora_up\.weight is I32, expected floats"):
        merge(base, tmp_path / "c", [(save(tmp_path / "c.safetensors", matrices), 1)])


def test_a_sum_that_the_type_cannot_hold_is_refused(tmp_path):
    base = checkpoint(tmp_path / "base", dtype=torch.float16)
    made = factors(network(), [LINEAR], 4)
    file = save(tmp_path / "l.safetensors", {n: t * 1e4 for n, t in peft(made).items()})

    with pytest.raises(SourceError, match=r"to_q\.weight: with the LoRA it is more than F16 holds"):
        merge(base, tmp_path / "out", [(file, 1)])


def test_a_lora_or_a_weight_that_is_no_number_is_named(tmp_path):
    base = checkpoint(tmp_path / "base", dtype=torch.float16)
    names = peft(factors(network(), [LINEAR], 4))
    whole = save(tmp_path / "whole.safetensors", names)
    up = next(name for name in names if "lora_B" in name)
    names[up] = torch.full_like(names[up], float("nan"))
    broken = save(tmp_path / "broken.safetensors", names)

    with pytest.raises(SourceError, match=r"to_q\.lora_B\.weight holds NaN or infinity"):
        merge(base, tmp_path / "a", [(broken, 1)])

    tensors = load_file(base / "weights.safetensors")
    tensors[f"{LINEAR}.weight"][1, 1] = float("inf")
    save_file(tensors, base / "weights.safetensors")
    with pytest.raises(SourceError, match=r"attn1\.to_q\.weight holds NaN or infinity"):
        merge(base, tmp_path / "b", [(whole, 1)])
