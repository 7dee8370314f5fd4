"""Networks that decode weights when they use them and recompute blocks: plain ones' numbers."""

import json

import pytest
import torch
from safetensors.torch import save_file

from sdbuild.checkpoints import normalize
from sdbuild.families import FAMILIES
from sdbuild.models import decoded, network
from sdbuild.models.recomputed import recompute
from tests.tiny_checkpoints import STYLES, networks

CASES = {
    "unet of 1.x": ("sd", "unet", "sd1"), "unet of 2.x": ("sd", "unet", "sd2"),
    "unet of XL": ("sdxl", "unet", "sdxl"), "transformer": ("sd3", "transformer", "sd3.5-medium"),
    "CLIP": ("sd", "text_encoder", "sd2"), "T5": ("sd3", "text_encoder_3", "sd3"),
}
SIZES = {"batch": 2, "width_px": 64, "height_px": 64}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request, tmp_path):
    """Builds a network anew from a file of fp16 weights; and an input of it."""
    family, name, style = request.param
    component = FAMILIES[family].component(name)
    torch.manual_seed(0)
    made = networks({"vae": {}} | STYLES[style])[component.folder]
    made.save_pretrained(tmp_path / "published")
    config = json.loads((tmp_path / "published" / "config.json").read_text("utf-8"))
    found = normalize.architecture(component.folder, config, family)
    architecture = network.Architecture(
        class_name=found["class"], config=found["config"], size_px=(64, 64))
    file = tmp_path / "weights.safetensors"
    save_file({key: value.half().contiguous() for key, value in made.state_dict().items()
               if "position_ids" not in key and key != "shared.weight"}, file)
    dims = network.dims(component, architecture, SIZES)
    samples = network.module(component).samples(
        component, architecture.config, dims, torch.Generator().manual_seed(1))
    return (lambda: network.weighted(component, architecture, file)), next(iter(samples))


def passed(net, given):
    """The outputs, the gradient of each parameter with more than one dimension, and the bytes that
    were kept for it."""
    parameters = {name: p for name, p in decoded.named_parameters(net) if p.ndim > 1}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made = net(*given)
    outputs = made if isinstance(made, tuple) else (made,)
    torch.cat([each.flatten() for each in outputs]).sin().sum().backward()
    gradients = {name: p.grad for name, p in parameters.items()}
    return [each.detach() for each in outputs], gradients, sum(kept.values())


def test_outputs_and_gradients_are_those_of_a_plain_network_that_keeps_more(case, monkeypatch):
    build, given = case
    monkeypatch.setattr(decoded, "LEAST_ELEMENTS", 1 << 40)
    plain = build()
    assert {(p.dtype, p.is_contiguous()) for p in plain.parameters()} == {(torch.float32, True)}
    outputs, gradients, kept = passed(plain, given)

    monkeypatch.setattr(decoded, "LEAST_ELEMENTS", 64)
    net = recompute(build())
    found, found_gradients, found_kept = passed(net, given)

    assert all(torch.equal(a, b) for a, b in zip(found, outputs, strict=True))
    assert found_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert gradient is None or torch.equal(found_gradients[name], gradient), name
    assert found_kept < 0.7 * kept
