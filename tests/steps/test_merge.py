"""LoRAs merged into weights compute what the LoRA beside the layer computes."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sdbuild.base.errors import SourceError
from tests.loras import (
    CLIP,
    CONV,
    LAYERS,
    LINEAR,
    checkpoint,
    factors,
    kohya,
    merge,
    network,
    older,
    oldest,
    peft,
    save,
    text_encoder,
)


def beside(net, factors, scale):
    """Lets each layer add its LoRA's output to its own."""
    for name, (down, up) in factors.items():
        def add(module, inputs, output, down=down, up=up):
            return output + scale * up(down(inputs[0]))
        net.get_submodule(name).register_forward_hook(add)
    return net


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
    net = text_encoder()
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
    merged = text_encoder()
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
    with pytest.raises(SourceError, match=r"attn1\.to_q\.weight holds NaN or inf") as error:
        merge(base, tmp_path / "b", [(whole, 1)])
    assert str(tmp_path) not in error.value.message  # a folder of a step says nothing to a user
