"""Networks that are not built, and configs that make none, are refused by name before any work."""

import json
import re

import pytest
import torch

from sdbuild.base.digest import digest_file
from sdbuild.base.errors import SourceError
from sdbuild.checkpoints import normalize
from sdbuild.checkpoints.folder import Folder
from sdbuild.checkpoints.networks import NO_MORE
from tests.checkpoints.test_single_file import download
from tests.single_files import write

UNET = {"_class_name": "UNet2DConditionModel"}
TEXT = {"architectures": ["CLIPTextModel"]}
VAE = {"_class_name": "AutoencoderKL", "block_out_channels": [32, 32, 32, 64],
       "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}


@pytest.mark.parametrize(("part", "config", "what"), [
    ("unet", UNET | {"addition_embed_type": "text_time"}, "it is of Stable Diffusion XL"),
    ("unet", UNET | {"class_embed_type": "projection"}, "unCLIP"),
    ("unet", UNET | {"num_class_embeds": 1000}, "as upscalers do"),
    ("unet", UNET | {"in_channels": 8}, "it is InstructPix2Pix"),
    ("unet", UNET | {"in_channels": 5}, "it is for depth to image"),
    ("unet", UNET | {"dual_cross_attention": True}, "Versatile Diffusion"),
    ("unet", UNET | {"encoder_hid_dim_type": "image_proj"}, "IP-Adapter and Kandinsky"),
    ("unet", UNET | {"encoder_hid_dim_type": "text_proj"}, "or Kolors"),
    ("text_encoder", {"architectures": ["ChatGLMModel"]}, "the text encoder of Kolors"),
    ("unet", UNET | {"attention_type": "gated"}, "GLIGEN"),
    ("unet", UNET | {"reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1]}, "SSD-1B"),
    ("unet", UNET | {"resnet_time_scale_shift": "scale_shift"}, "DeepFloyd"),
    ("unet", {"_class_name": "UNetMotionModel"}, "AnimateDiff"),
    ("unet", {"_class_name": "Nobody'sModel"}, "expected UNet2DConditionModel"),
    ("text_encoder", {"architectures": ["CLIPTextModelWithProjection"]}, "second text encoder"),
    ("vae", {"_class_name": "AutoencoderTiny"}, "TAESD"),
    ("vae", VAE | {"latent_channels": 16}, "belongs to Stable Diffusion 3 or FLUX"),
    ("vae", VAE | {"shift_factor": 0.1159}, "as those of FLUX are"),
])
def test_a_network_that_is_not_built_is_refused_by_name(part, config, what):
    with pytest.raises(SourceError, match=re.escape(what)) as error:
        normalize.architecture(part, config)
    assert f"{part}/config.json" in error.value.message
    assert "lower=direct" not in error.value.hint


@pytest.mark.parametrize(("kind", "title"), [
    ("FluxPipeline", "FLUX"), ("Flux2KleinPipeline", "FLUX.2"), ("PixArtSigmaPipeline", "PixArt"),
    ("KolorsPipeline", "Kolors"), ("SanaPipeline", "Sana"), ("IFPipeline", "DeepFloyd IF"),
    ("HunyuanDiTPipeline", "Hunyuan-DiT"), ("StableVideoDiffusionPipeline", "Stable Video"),
])
@pytest.mark.parametrize("read", ["config", "identity"])
def test_a_pipeline_of_another_model_is_refused_by_its_name(tmp_path, kind, title, read):
    for name in ("transformer", "text_encoder", "vae", "scheduler"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    folder = Folder(tmp_path)

    with pytest.raises(SourceError, match=f"it is {title}") as error:
        folder.config("unet") if read == "config" else folder.identity("unet", digest_file)

    assert error.value.hint == NO_MORE
    assert f"model_index.json names {kind!r}" in error.value.message


@pytest.mark.parametrize("index", [
    {"_class_name": "StableDiffusionPipeline"}, {"_class_name": ["Flux"]}, {}])
def test_a_pipeline_of_a_known_model_lacks_a_part_as_before(tmp_path, index):
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text("{}")
    (tmp_path / "model_index.json").write_text(json.dumps(index))

    with pytest.raises(SourceError, match="no unet, only vae"):
        Folder(tmp_path).config("unet")


@pytest.mark.parametrize(("part", "config"), [
    ("text_encoder", TEXT | {"num_hidden_layers": 10_000_000}),
    ("text_encoder", TEXT | {"num_hidden_layers": -1}),
    ("text_encoder", TEXT | {"hidden_size": "768"}),
    ("text_encoder", TEXT | {"layer_norm_eps": float("nan")}),
    ("text_encoder", TEXT | {"vocab_size": True}),
    ("text_encoder", TEXT | {"num_attention_heads": 10**400}),
    ("unet", UNET | {"block_out_channels": [320] * 1000}),
    ("unet", UNET | {"block_out_channels": {"a": 1}}),
    ("unet", UNET | {"layers_per_block": [2, "2", 2, 2]}),
    ("unet", UNET | {"norm_eps": 10**400}),
    ("unet", UNET | {"attention_head_dim": 0}),
    ("unet", UNET | {"act_fn": ["silu"]}),
    ("vae", VAE | {"block_out_channels": [32, 64]}),
    ("safety_checker", {"architectures": ["StableDiffusionSafetyChecker"],
                        "vision_config": {"num_hidden_layers": 1e7}}),
])
def test_an_absurd_config_is_refused(part, config):
    with pytest.raises(SourceError, match=r"config\.json: the network cannot be built"):
        normalize.architecture(part, config)


@pytest.mark.parametrize(("name", "what"), [
    ("model.diffusion_model.time_embed.cond_proj.weight", "time_cond_proj_dim is 2, expected"),
    ("model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k_ip.weight",
     "IP-Adapter"),
    ("model.diffusion_model.middle_block.1.weight.quant_map", "quantized by bitsandbytes"),
])
def test_a_file_with_layers_of_another_network_is_refused(first, tmp_path, name, what):
    file = write(tmp_path / "a.safetensors", first[2] | {name: torch.zeros(2, 2)})

    with pytest.raises(SourceError, match=what):
        download(file, tmp_path / "out", "unet")
