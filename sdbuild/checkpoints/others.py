"""Files of tensors of models that are not built: recognized by names that only they have."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints.networks import NO_MORE

_UNET = r"(model\.)?(diffusion_model\.)?"
_KINDS = tuple((re.compile(pattern), kind, hint) for pattern, kind, hint in (
    (r"lora_(unet|te)|.*\.lora_[AB]\.|.*[._]lora\.(up|down)\.", "is a LoRA",
     "lora=FILE merges it into the checkpoint that it was made for"),
    (r"(edm_mean|edm_std|edm_vpred\.)", "is of a model with another schedule of noise (EDM), as "
     "Playground 2.5 and CosXL are", ""),
    (_UNET + r"double_blocks\.", "is of FLUX", ""),
    (r"lora_controlnet$", "is a Control-LoRA", "use the ControlNet that it was made from"),
    (r"difference$", "is the difference of a ControlNet to a U-Net",
     "use the complete ControlNet, which its owner publishes too"),
    (r"lllite_unet_", "is a ControlNet-LLLite", ""),
    (r"(control_model\.)?(task_embedding|control_add_embedding\.|transformer_layes\.)",
     "is a ControlNet for several kinds of pictures (union)", ""),
    (r"(adapter\.)?body\.\d+\.(in_conv|resnets|block1)\b", "is a T2I adapter", ""),
    (_UNET + r"single_transformer_blocks\.", "is of FLUX, by diffusers' names", ""),
    (_UNET + r"adaln_single\.", "is of PixArt", ""),
    (_UNET + r"encoder_hid_proj\.", "projects its prompts first, as Kolors and IP-Adapter do", ""),
    (_UNET + r"class_embedding\.", "needs more than a prompt, as unCLIP does", ""),
    (_UNET + r".*\.(to_[kv]_ip|motion_modules|temporal_transformer|fuser)\.|" + _UNET +
     r"position_net\.", "has layers that Stable Diffusion has not, as IP-Adapter, AnimateDiff and "
     "GLIGEN add", ""),
    (r"(emb_params|string_to_param|clip_[lg])\b", "is an embedding (textual inversion)",
     "embedding=FILE writes it into the checkpoint that it was made for"),
    (r".*\.(quant_map|absmax|nested_absmax)$", "is quantized by bitsandbytes",
     "use the fp16 or bf16 file of the same model"),
    (r"(unet|vae|text_encoder)\.", "has the names of an entire pipeline in diffusers",
     "source=FOLDER is a complete checkpoint in diffusers' layout"),
))


_WHOLE = ("model.diffusion_model.", "first_stage_model.")
_CONTROLNET = re.compile(r"control_model\.|(controlnet_)?(cond_embedding|input_hint_block)\.")
_OF_ONE_MODEL = ("unet", "controlnet")
"""The parts that Stable Diffusion 3 has none of."""

_EXPECTED = {"controlnet": "a ControlNet", "embedding": "an embedding (textual inversion)",
             "vae": "an autoencoder, or a checkpoint"}


def refuse(path: Path, names: Iterable[str], part: str) -> None:
    """Makes sure that a file with tensors of these names can have a part.

    Raises:
        SourceError: it is of another kind; names the kind, and what helps.
    """
    names = list(names)
    kinds = _KINDS if part not in _OF_ONE_MODEL else (
        *_KINDS, (re.compile(_UNET + r"(joint_blocks|transformer_blocks\.0\.attn\.add_q_proj)\."),
                  "is of Stable Diffusion 3", 'a recipe with family = "sd3" builds it'))
    if part != "controlnet" and not any(name.startswith(_WHOLE) for name in names):
        kinds = (*kinds, (_CONTROLNET, "is a ControlNet",
                          "controlnet=FILE adds it to a bundle"))
    expected = _EXPECTED.get(part, "a checkpoint of Stable Diffusion")
    for name in names:
        for pattern, kind, hint in kinds:
            if pattern.match(name) and kind != f"is {expected}":
                raise SourceError(
                    f"{path}: the file {kind}, expected {expected}", hint=hint or NO_MORE,
                    tensor=name,
                )
