"""The names of LoRA tensors: what each tensor is, and of which layer of which component.

The end of a name says what the tensor is, its beginning the component, and the rest the layer:

    lora_unet_mid_block_attentions_0_proj_in.lora_down.weight      kohya, and .lora_up, .alpha
    unet.mid_block.attentions.0.proj_in.lora_A.weight              peft and diffusers, and .lora_B
    unet.mid_block.attentions.0.proj_in.lora.down.weight           older, and .lora.up
    mid_block. … .attn1.processor.to_q_lora.down.weight            the oldest
    lora_unet_middle_block_1_proj_in.hada_w1_a                     the layers of the first code
    diffusion_model.middle_block.1.proj_in.lora_A.weight           ComfyUI
    lora_te1_…, lora_te2_…; text_encoder_2.…                       the text encoders of XL and 3
    transformer.transformer_blocks.0.attn.to_q.lora_A.weight       the transformer of 3
    lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight     the same, by its first code
    base_model.model.mid_block. … .lora_magnitude_vector           peft alone

Source:
    kohya-ss/sd-scripts `networks/lora.py`; KohakuBlueleaf/LyCORIS `modules`; Comfy-Org/ComfyUI
    `comfy/lora.py`; diffusers `loaders/lora_conversion_utils.py` and `utils/state_dict_utils.py`;
    peft `utils/save_and_load.py`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
PEFT = "base_model.model."
"""The prefix that peft adds to the names of a network that it wraps."""

_WRAPPERS = re.compile(r"_orig_mod[._]|(?:^|(?<=\.))(?:module|base_model\.model)\.")
"""torch.compile, DataParallel and peft each name what they wrap, anywhere in a name."""

_COMPONENTS = (
    (re.compile(r"(?:lora_unet_|lora_transformer_|lycoris_|unet\.|transformer\.|"
                r"(?:model\.)?diffusion_model\.|)(?=(?:joint_blocks|[txy]_embedder|"
                r"context_embedder|final_layer)[._])"), "transformer"),
    (re.compile(r"lora_te2_|text_encoder_2\.|(?:text_encoders\.)?clip_g\.transformer\."),
     "text_encoder_2"),
    (re.compile(r"(?:lora_|lycoris_)?transformer[._](?=(?:transformer_blocks|context_embedder|"
                r"pos_embed|time_text_embed|norm_out|proj_out)[._])"), "transformer"),
    (re.compile(r"lora_unet_|unet\.|(?:model\.)?diffusion_model\."), "unet"),
    (re.compile(r"lora_te1?_|text_encoder\.|(?:text_encoders\.)?clip_[lh]\.transformer\."),
     "text_encoder"),
    (re.compile(r"(?=text_model\.|encoder\.layers\.)|lycoris_(?=text_model_|encoder_layers_)"),
     "text_encoder"),
    (re.compile(r"(?:lycoris_|)(?=(?:down_blocks|mid_block|up_blocks|conv_in|conv_out|"
                r"time_embedding|input_blocks|middle_block|output_blocks|time_embed|out)[._])"),
     "unet"),
)
_ROLE = re.compile(r"""
    (?P<layer>.+?)(?:
      [._](?P<kohya>lora_(?:down|up|mid))\.weight
    | [._](?:lora|lora_linear_layer)\.(?P<older>down|up)\.weight
    | \.lora_(?P<peft>[AB])(?:\.[^.]+)?\.weight
    | \.lora_(?P<bias>B)(?:\.[^.]+)?\.bias
    | \.(?:(?P<magnitude>dora_scale|lora_magnitude_vector)(?:\.[^.]+)?(?:\.weight)?)
    | \.(?P<other>(?:hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)))(?:\.[^.]+)?
    | (?:\.lora)?\.(?P<exact>alpha|diff|diff_b|w_norm|b_norm)
    )""", re.VERBOSE)
_ROLES = {
    "A": "lora_down", "B": "lora_up", "down": "lora_down", "up": "lora_up",
    "w_norm": "diff", "b_norm": "diff_b",
}
_SELF_ATTENTION = re.compile(r"(?<=_self_attn_)to_(q|k|v|out)$")

_OTHER_MODELS = (
    (re.compile(r"lora_te3_|text_encoder_3\.|.*(?:^|[._])t5xxl[._]"),
     "changes T5, a text encoder of Stable Diffusion 3, which is not supported"),
    (re.compile(r"(?:lora_unet_|lora_transformer_|lycoris_|diffusion_model\.|transformer\.|)"
                r"(?:double_blocks|single_blocks|single_transformer_blocks|blocks|layers)[._]|"
                r"(?:lora_unet_|lycoris_|diffusion_model\.|)transformer_blocks[._]"),
     "is made for a transformer, such as FLUX"),
)
_OTHER_KINDS = (
    (re.compile(r".*\.oft_|.*\.boft_"), "is an OFT, which is not supported"),
    (re.compile(r".*\.[ab][12]\.weight$"), "is a GLoRA, which is not supported"),
    (re.compile(r".*\.on_input$"), "is an (IA)3, which is not supported"),
)
_EMBEDDING = re.compile(r"emb_params|string_to_(?:param|token).*|clip_[lg]|<[^>]*>")
_BUNDLED = "bundle_emb."


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A tensor's role in the change of a layer, `lora_down` for instance.

    `layer` is as the file names it; `flat` is the same for all the ways of naming it.
    """

    component: str
    layer: str
    role: str

    @property
    def flat(self) -> str:
        """The layer with each `.` as `_`, which is all that kohya's names keep."""
        flat = flattened(self.layer)
        if self.component in TEXT_ENCODERS:
            return _SELF_ATTENTION.sub(lambda m: f"{m[1]}_proj", flat)
        return f"{flat}_0" if flat.endswith("_to_out") else flat  # which was no list once


def part(name: str) -> Part | None:
    """Returns what the tensor of this name is; None if it is nothing known."""
    name = _WRAPPERS.sub("", name)
    for pattern, component in _COMPONENTS:
        if start := pattern.match(name):
            found = _ROLE.fullmatch(name[start.end():])
            if found is None:
                return None
            return Part(component=component, role=_role(found),
                        layer=found["layer"].replace(".processor.", "."))
    return None


def _role(found: re.Match[str]) -> str:
    if found["bias"]:
        return "lora_bias"
    if found["magnitude"]:
        return found["magnitude"]
    said = next(found[kind] for kind in ("kohya", "older", "peft", "other", "exact")
                if found[kind])
    return _ROLES.get(said, said)


def flattened(layer: str) -> str:
    """Returns a layer of a network as `Part.flat` names it."""
    return layer.replace(".", "_").removeprefix("text_model_")


def is_peft(name: str) -> bool:
    """Whether peft alone wrote the name: then the strength is in a file beside it."""
    return PEFT in name


def is_bundled(name: str) -> bool:
    """Whether the tensor is of an embedding that was saved with a LoRA."""
    return name.startswith(_BUNDLED)


def other(names: Collection[str]) -> tuple[str, list[str]]:
    """Returns what a file with tensors of these names is instead of a LoRA that can be merged.

    With it, the names that show it; empty if they do not.
    """
    for pattern, what in (*_OTHER_KINDS, *_OTHER_MODELS):
        if found := [name for name in names if pattern.match(_WRAPPERS.sub("", name))]:
            return what, found
    found = [name for name in names if _EMBEDDING.fullmatch(name) or is_bundled(name)]
    if found and len(found) == len(names):
        return "is a textual inversion, an embedding for words of a prompt, not a LoRA", found
    return "", []
