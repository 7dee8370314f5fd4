"""Files of a repository that belong to each part, inferred from the listings of published ones."""

import pytest

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints.hub.hub import Hub


def under(folder, *names):
    return [f"{folder}/{name}" for name in names]


TOKENIZER = ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")
CLIP = ("config.json", "flax_model.msgpack", "model.fp16.safetensors", "model.onnx",
        "model.onnx_data", "model.safetensors", "openvino_model.bin", "openvino_model.xml")
NETWORK = ("config.json", "diffusion_flax_model.msgpack", "diffusion_pytorch_model.safetensors",
           "diffusion_pytorch_model.fp16.safetensors", "model.onnx", "openvino_model.bin")
VAES = [*under("vae", *NETWORK), *under("vae_1_0", *NETWORK[:3]),
        *under("vae_decoder", "config.json", "model.onnx"),
        *under("vae_encoder", "config.json", "model.onnx")]
TOP = ["README.md", "LICENSE.md", "model_index.json", "scheduler/scheduler_config.json"]
LISTINGS = {
    "stabilityai/stable-diffusion-xl-base-1.0": [
        *TOP, *VAES, "sd_xl_base_1.0.safetensors", "sd_xl_offset_example-lora_1.0.safetensors",
        *under("text_encoder", *CLIP), *under("text_encoder_2", *CLIP), *under("unet", *NETWORK),
        *under("tokenizer", *TOKENIZER), *under("tokenizer_2", *TOKENIZER)],
    "stabilityai/stable-diffusion-xl-refiner-1.0": [
        *TOP, *VAES, "sd_xl_refiner_1.0.safetensors", *under("text_encoder_2", *CLIP),
        *under("tokenizer_2", *TOKENIZER), *under("unet", *NETWORK)],
    "diffusers/stable-diffusion-xl-1.0-inpainting-0.1": [
        *TOP, *under("vae", *NETWORK), *under("unet", *NETWORK), *under("text_encoder", *CLIP),
        *under("text_encoder_2", *CLIP), *under("tokenizer", *TOKENIZER),
        *under("tokenizer_2", *TOKENIZER)],
    "lllyasviel/control_v11p_sd15_canny": [
        "README.md", "config.json", "control_net_canny.py", "images/bird.png",
        "diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.bin",
        "diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.safetensors"],
    "xinsir/controlnet-openpose-sdxl-1.0": [
        "README.md", "config.json", "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model_twins.safetensors", "000000_scribble_concat.webp"],
    "SimianLuo/LCM_Dreamshaper_v7": [
        "README.md", "model_index.json", "LCM_Dreamshaper_v7_4k.safetensors",
        "lcm_scheduler.py", "scheduler/scheduler_config.json", "inference.onnx",
        *under("unet", "config.json", "diffusion_pytorch_model.bin",
               "diffusion_pytorch_model.safetensors"),
        *under("text_encoder", "config.json", "model.safetensors", "pytorch_model.bin"),
        *under("vae", "config.json", "diffusion_pytorch_model.safetensors"),
        *under("tokenizer", *TOKENIZER)],
    "thibaud/controlnet-sd21": [
        "README.md", "control_v11p_sd21_canny.ckpt", "control_v11p_sd21_canny.safetensors",
        "control_v11p_sd21_canny.yaml", "control_v11p_sd21_depth.safetensors"],
}
"""As their pages show them, pictures left out."""

HALF = "diffusion_pytorch_model.fp16.safetensors"
BASE, REFINER, INPAINTING, CANNY, OPENPOSE, LCM, _ = LISTINGS


def hub(name):
    return Hub(f"hub:{name}@{'0' * 40}", dict.fromkeys(LISTINGS[name], "git:0"), {})


@pytest.mark.parametrize("name, part, wanted", [
    *((name, "text_encoder_2", under("text_encoder_2", "config.json", "model.fp16.safetensors"))
      for name in (BASE, REFINER, INPAINTING)),
    *((name, "unet", under("unet", "config.json", HALF)) for name in (BASE, REFINER, INPAINTING)),
    (BASE, "vae", under("vae", "config.json", HALF)),
    (BASE, "text_encoder", under("text_encoder", "config.json", "model.fp16.safetensors")),
    (BASE, "tokenizer", under("tokenizer", *TOKENIZER)),
    *((name, "tokenizer_2", under("tokenizer_2", *TOKENIZER)) for name in (BASE, REFINER)),
    (BASE, "resources", [*under("tokenizer", *TOKENIZER), *under("tokenizer_2", *TOKENIZER),
                         "scheduler/scheduler_config.json", "README.md", "LICENSE.md"]),
    (REFINER, "resources", [*under("tokenizer_2", *TOKENIZER),
                            "scheduler/scheduler_config.json", "README.md", "LICENSE.md"]),
    (CANNY, "controlnet", ["config.json", HALF]),
    (OPENPOSE, "controlnet", ["config.json", "diffusion_pytorch_model.safetensors"]),
    (LCM, "unet", under("unet", "config.json", "diffusion_pytorch_model.safetensors")),
    (LCM, "scheduler", ["scheduler/scheduler_config.json"]),
], ids=str)
def test_of_a_published_repository_a_part_has_these_files_and_no_others(name, part, wanted):
    assert sorted(hub(name).identity(part, str)) == sorted(wanted)


def test_a_repository_of_single_files_is_refused_with_what_to_do():
    """bghira/SimpleTuner issue 2624, of a fine-tune of XL; ControlNets of 2.1 come so, too."""
    with pytest.raises(SourceError, match="expected a checkpoint in diffusers' layout") as error:
        hub("thibaud/controlnet-sd21").config("controlnet")
    assert error.value.hint == (
        "it has checkpoints in one file, 'control_v11p_sd21_canny.safetensors' and 1 more: "
        "source=FILE, once fetched")


def test_a_refiner_has_no_first_text_encoder_on_the_hub_either():
    found = hub(REFINER)

    assert not found.has("text_encoder") and found.has("text_encoder_2")
    with pytest.raises(SourceError, match="no text_encoder, only scheduler, text_encoder_2"):
        found.config("text_encoder")
