"""Files of tensors that are none of Stable Diffusion 1 or 2: told by names that only they have."""

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
    (r"conditioner\.embedders\.", "is of Stable Diffusion XL", ""),
    (_UNET + r"joint_blocks\.", "is of Stable Diffusion 3", ""),
    (_UNET + r"double_blocks\.", "is of FLUX", ""),
    (r"control_model\.|(controlnet_)?(cond_embedding|input_hint_block)\.", "is a ControlNet", ""),
    (_UNET + r"(label_emb|add_embedding|class_embedding)\.", "needs more than a prompt, as Stable "
     "Diffusion XL and unCLIP do", ""),
    (_UNET + r"time_embed(ding)?\.cond_proj\.", "has guidance as an input, as LCM does", ""),
    (_UNET + r".*\.(to_[kv]_ip|motion_modules|temporal_transformer|fuser)\.|" + _UNET +
     r"position_net\.", "has layers that Stable Diffusion has not, as IP-Adapter, AnimateDiff and "
     "GLIGEN add", ""),
    (r"(emb_params|string_to_param|clip_[lg])\b", "is an embedding (textual inversion)", ""),
    (r".*\.(quant_map|absmax|nested_absmax)$", "is quantized by bitsandbytes",
     "use the fp16 or bf16 file of the same model"),
    (r"(unet|vae|text_encoder)\.", "has the names of an entire pipeline in diffusers",
     "source=FOLDER is a complete checkpoint in diffusers' layout"),
))


def refuse(path: Path, names: Iterable[str], expected: str) -> None:
    """Makes sure that a file with tensors of these names is of no other kind.

    Raises:
        SourceError: it is; names the kind, and what helps.
    """
    for name in names:
        for pattern, kind, hint in _KINDS:
            if pattern.match(name):
                raise SourceError(
                    f"{path}: the file {kind}, expected {expected}", hint=hint or NO_MORE,
                    tensor=name,
                )
