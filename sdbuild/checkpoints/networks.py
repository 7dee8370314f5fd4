"""The networks that can be built: what each field of a config may be, and what another value means.

The one table of them. A network that is built one day has its rule here widened; what no rule
allows is refused before any work, by its name, and never left to the libraries to trip over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints.defaults import DEFAULTS
from sdbuild.checkpoints.rules import Rule, either, integer, list_of, number, only, per_block, shown
from sdbuild.families import FAMILIES

NO_MORE = "the models that can be built are " + ", ".join(f.title for f in FAMILIES.values())
"""The hint for what belongs to none of them."""

CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel",
           "text_encoder_2": "CLIPTextModelWithProjection", "text_encoder_3": "T5EncoderModel",
           "transformer": "SD3Transformer2DModel", "controlnet": "ControlNetModel",
           "safety_checker": "StableDiffusionSafetyChecker"}
"""The class of each part."""

_CLASSES = {("sd3", "text_encoder"): ("CLIPTextModelWithProjection", "CLIPTextModel")}
"""Those of a part in a family where they are others. Stable Diffusion 3's single files have the
first encoder without a projection, which is then the identity."""

_OTHERS = {
    "AutoencoderTiny": "a small autoencoder (TAESD), which previews are made with",
    "AsymmetricAutoencoderKL": "an autoencoder for inpainting",
    "CLIPTextModelWithProjection": "the second text encoder of Stable Diffusion XL",
    "ChatGLMModel": "the text encoder of Kolors",
    "ControlNetModel": "a ControlNet",
    "FluxTransformer2DModel": "a transformer, as FLUX has",
    "SD3Transformer2DModel": "the transformer of Stable Diffusion 3",
    "T5EncoderModel": "the third text encoder of Stable Diffusion 3",
    "UNetMotionModel": "a U-Net for video (AnimateDiff)",
    "VQModel": "an autoencoder of the first latent diffusion models",
}

_NONE = only(None)
_FLAG = only(True, False)
_ACTIVATION = only("silu", "swish", "mish", "gelu", "relu")
_CHANNELS, _LAYERS, _GROUPS = integer(1, 8192), integer(1, 16), integer(1, 1024)
_HEADS = integer(1, 2048)
_EPSILON = number(0, 1)
_DEEPFLOYD = "it has layers of DeepFloyd IF"
_EXTRA = "it needs more than a prompt, as unCLIP does"
_XL_EXTRA = {"text_time": "it is of Stable Diffusion XL",
             "text_image": "it has an image as its prompt, as Kandinsky does"}
_GUIDED = "it has guidance as an input, as distilled models (LCM) do"
_INPUTS = {
    3: "it works on pixels", 5: "it is for depth to image", 7: "it is an upscaler",
    8: "it is InstructPix2Pix", 9: "it is for inpainting", 16: "it is of a model with 16 latents",
}

_UNET = {
    "act_fn": _ACTIVATION,
    "addition_embed_type": only(None, "text_time", otherwise=_XL_EXTRA),
    "addition_time_embed_dim": either(_NONE, integer(1, 8192)),
    "attention_head_dim": per_block(_HEADS),
    "attention_type": only("default", otherwise="it places objects, as GLIGEN does"),
    "block_out_channels": list_of(_CHANNELS),
    "center_input_sample": _FLAG,
    "class_embed_type": only(None, otherwise=_EXTRA),
    "class_embeddings_concat": only(False, otherwise=_EXTRA),
    "conv_in_kernel": integer(1, 9),
    "conv_out_kernel": integer(1, 9),
    "cross_attention_dim": _CHANNELS,
    "cross_attention_norm": only(None, otherwise=_DEEPFLOYD),
    "down_block_types": per_block(only("CrossAttnDownBlock2D", "DownBlock2D")),
    "downsample_padding": integer(0, 1),
    "dual_cross_attention": only(False, otherwise="it is Versatile Diffusion"),
    "encoder_hid_dim": only(None, otherwise="it projects prompts first"),
    "encoder_hid_dim_type": only(None, otherwise="it projects prompts or pictures first, as "
                                                  "IP-Adapter and Kandinsky, or Kolors, do"),
    "flip_sin_to_cos": _FLAG,
    "freq_shift": number(0, 1),
    "in_channels": only(4, 9, otherwise=_INPUTS),
    "layers_per_block": per_block(_LAYERS),
    "mid_block_only_cross_attention": only(None, False, otherwise=_DEEPFLOYD),
    "mid_block_scale_factor": number(0.01, 100),
    "mid_block_type": only("UNetMidBlock2DCrossAttn", None),
    "norm_eps": _EPSILON,
    "norm_num_groups": _GROUPS,
    "num_attention_heads": either(_NONE, per_block(_HEADS)),
    "num_class_embeds": only(None, otherwise="it has classes as inputs, as upscalers do"),
    "only_cross_attention": per_block(_FLAG),
    "projection_class_embeddings_input_dim": either(_NONE, integer(1, 65536)),
    "out_channels": only(4, otherwise="it predicts more than noise"),
    "resnet_out_scale_factor": number(0.01, 100),
    "resnet_skip_time_act": only(False, otherwise=_DEEPFLOYD),
    "resnet_time_scale_shift": only("default", otherwise=_DEEPFLOYD),
    "reverse_transformer_layers_per_block": only(
        None, otherwise="its blocks differ from one another, as those of SSD-1B and Vega do"),
    "time_cond_proj_dim": either(_NONE, integer(4, 8192)),
    "time_embedding_act_fn": either(_NONE, _ACTIVATION),
    "time_embedding_dim": either(_NONE, integer(1, 65536)),
    "time_embedding_type": only("positional"),
    "timestep_post_act": either(_NONE, _ACTIVATION),
    "transformer_layers_per_block": per_block(_LAYERS),
    "up_block_types": per_block(only("CrossAttnUpBlock2D", "UpBlock2D")),
    "use_linear_projection": _FLAG,
}
_XL = {
    "addition_embed_type": only("text_time", otherwise={None: "it is none of its kind"}),
    "addition_time_embed_dim": integer(1, 8192),
    "projection_class_embeddings_input_dim": integer(1, 65536),
}
_BY_FAMILY: Mapping[str, Mapping[str, Rule]] = {
    "sd": {"addition_embed_type": only(None, otherwise=_XL_EXTRA)},
    "sdxl": _XL,
    "sdxl-refiner": _XL | {
        "in_channels": only(4, otherwise=_INPUTS),
        "time_cond_proj_dim": only(None, otherwise=_GUIDED),
    },
}
"""Rules for the U-Nets and ControlNets of single families, applied before the general ones. To
allow more in a family, such as inpainting, change them here."""

_AUTOENCODER = {
    "act_fn": _ACTIVATION,
    "block_out_channels": list_of(_CHANNELS, 4, 4),
    "down_block_types": per_block(only("DownEncoderBlock2D")),
    "in_channels": only(3),
    "latent_channels": only(4, otherwise={16: "it belongs to Stable Diffusion 3 or FLUX"}),
    "latents_mean": only(None, otherwise="its latents are shifted, as other models' are"),
    "latents_std": only(None, otherwise="its latents are scaled one by one"),
    "layers_per_block": _LAYERS,
    "mid_block_add_attention": _FLAG,
    "norm_num_groups": _GROUPS,
    "out_channels": only(3),
    "shift_factor": only(None, 0.0, otherwise="its latents are shifted, as those of FLUX are"),
    "up_block_types": per_block(only("UpDecoderBlock2D")),
    "use_post_quant_conv": _FLAG,
    "use_quant_conv": _FLAG,
}
_TRANSFORMER = {
    "hidden_act": only("quick_gelu", "gelu"),
    "hidden_size": _CHANNELS,
    "intermediate_size": integer(1, 65536),
    "layer_norm_eps": _EPSILON,
    "num_attention_heads": _HEADS,
    "num_hidden_layers": integer(1, 128),
}
_CLIP_TEXT = _TRANSFORMER | {
    "eos_token_id": integer(0, 1_000_000),
    "max_position_embeddings": integer(77, 100_000),
    "vocab_size": integer(1, 1_000_000),
}
_CONTROLNET_ONLY = {
    "conditioning_channels": only(3),
    "conditioning_embedding_out_channels": list_of(_CHANNELS),
    "controlnet_conditioning_channel_order": only("rgb", "bgr"),
    "mid_block_type": only("UNetMidBlock2DCrossAttn", "UNetMidBlock2D"),
    "global_pool_conditions": only(False, otherwise="it pools its residuals, as shuffle does"),
}
_CLIP_VISION = _TRANSFORMER | {
    "image_size": integer(1, 4096), "num_channels": only(3), "patch_size": integer(1, 1024),
}
_SD3_TRANSFORMER = {
    "attention_head_dim": integer(1, 2048),
    "caption_projection_dim": _CHANNELS,
    "dual_attention_layers": list_of(integer(0, 127), 0, 128),
    "in_channels": only(16),
    "joint_attention_dim": _CHANNELS,
    "num_attention_heads": _HEADS,
    "num_layers": integer(1, 128),
    "out_channels": only(16),
    "patch_size": only(2),
    "pooled_projection_dim": _CHANNELS,
    "pos_embed_max_size": integer(1, 4096),
    "qk_norm": only(None, "rms_norm"),
}
_T5 = {
    "d_ff": integer(1, 65536),
    "d_kv": integer(1, 2048),
    "d_model": _CHANNELS,
    "feed_forward_proj": only("gated-gelu", "relu"),
    "layer_norm_epsilon": _EPSILON,
    "num_heads": _HEADS,
    "num_layers": integer(1, 128),
    "relative_attention_max_distance": only(128),
    "relative_attention_num_buckets": integer(4, 1024),
    "vocab_size": integer(1, 1_000_000),
}
_SD3_AUTOENCODER = _AUTOENCODER | {
    "latent_channels": only(16, otherwise={4: "it belongs to Stable Diffusion 1, 2 or XL"}),
    "shift_factor": either(_NONE, number(-1000, 1000)),
}
_CONDITIONED = ("UNet2DConditionModel", "ControlNetModel")
_PUBLISHED = {(2048, 2816): "sdxl", (1280, 2560): "sdxl-refiner"}
"""The families of XL by the widths of their prompts and of what they take beside them: six numbers
about the picture, or five."""

_RULES: Mapping[str, Mapping[str, Rule]] = {
    "UNet2DConditionModel": _UNET, "AutoencoderKL": _AUTOENCODER, "CLIPTextModel": _CLIP_TEXT,
    "CLIPTextModelWithProjection": _CLIP_TEXT | {"projection_dim": _CHANNELS},
    "CLIPVisionModel": _CLIP_VISION,
    "ControlNetModel": {name: rule for name, rule in _UNET.items()
                        if name in DEFAULTS["ControlNetModel"]} | _CONTROLNET_ONLY,
    "StableDiffusionSafetyChecker": {"projection_dim": _CHANNELS},
    "SD3Transformer2DModel": _SD3_TRANSFORMER, "T5EncoderModel": _T5,
}


def check_class(part: str, name: str, family: str = "sd") -> None:
    """Makes sure that a part's network is of a class that can be built in a family.

    Raises:
        SourceError: it is of another, or of one that nobody knows.
    """
    expected = _CLASSES.get((family, part), (CLASSES.get(part, name),))
    if name not in expected:
        what = f", {_OTHERS[name]}" if name in _OTHERS else ""
        raise SourceError(
            f"{part}/config.json: its network is {shown(name)}{what}; expected "
            f"{' or '.join(expected)}",
            hint=NO_MORE, part=part,
        )


def check_fields(
    part: str, name: str, config: Mapping[str, Any], family: str = "sd"
) -> None:
    """Makes sure that a network of the class `name` with such a config can be built in a family.

    Raises:
        SourceError: a field says that it cannot; names each, what it is and what was expected.
    """
    if problems := _problems(name, config, family):
        raise SourceError(
            f"{part}/config.json: the network cannot be built:\n  " + "\n  ".join(problems),
            hint=_built_by(name, config) or NO_MORE, part=part, problems=problems,
        )


def _problems(name: str, config: Mapping[str, Any], family: str) -> list[str]:
    """Returns the reasons why a network cannot be built in a family, empty if it can."""
    rules = _RULES.get(name, {})
    if name in _CONDITIONED:
        rules = {**rules, **_BY_FAMILY.get(family, {})}
    elif (family, name) == ("sd3", "AutoencoderKL"):
        rules = _SD3_AUTOENCODER
    problems = [
        f"{field} is {shown(config[field])}, expected {rule.expected}"
        + (f": {meaning}" if (meaning := rule.meaning(config[field])) else "")
        for field, rule in rules.items()
        if field in config and not rule.allows(config[field])
    ]
    if name in _CONDITIONED and not problems and published_family(config) not in ("", family):
        return [f"its widths are those of {FAMILIES[published_family(config)].title}"]
    return problems


def _built_by(name: str, config: Mapping[str, Any]) -> str:
    """Returns the hint for a U-Net that another family can build; empty if none can."""
    if name != "UNet2DConditionModel":
        return ""
    able = (family for family in _BY_FAMILY if not _problems(name, config, family))
    found = next(able, "")
    return f'a recipe with family = "{found}" builds it' if found else ""


def published_family(config: Mapping[str, Any]) -> str:
    """Returns the family of the published U-Net of XL with these widths; empty if none has them."""
    widths = config["cross_attention_dim"], config["projection_class_embeddings_input_dim"]
    return _PUBLISHED.get(widths, "") if isinstance(widths[0], int) else ""
