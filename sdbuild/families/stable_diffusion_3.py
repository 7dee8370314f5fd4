"""Stable Diffusion 3 and 3.5: a transformer over the tokens of the picture and of the prompt."""

from dataclasses import replace

from sdbuild.families.nouns import Component, Family, Port
from sdbuild.families.stable_diffusion import STABLE_DIFFUSION
from sdbuild.families.stable_diffusion_xl import STABLE_DIFFUSION_XL

_ENCODERS = tuple(
    replace(found, drop="", settings=found.settings - {"embedding"})
    for found in map(STABLE_DIFFUSION_XL.component, ("text_encoder", "text_encoder_2"))
)
_DEEP = STABLE_DIFFUSION.component("unet").floor

_T5 = Component(
    name="text_encoder_3",
    bundle_name="TextEncoderT5",
    network="text_encoder_t5",
    folder="text_encoder_3",
    drop="encoder.",
    precision="mixed",
    is_palettized=True,
    is_optional=True,
    derived={"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight":
             "relative_bias"},
    inputs=(
        Port(name="input_ids", shape=(1, "S"), dtype="fp32",
             meaning="The tokens of the prompt, padded."),
        # Hosts send 0 for words and 1 for padding. The transformer was trained on embeddings of
        # prompts whose padding counts, so it must not matter.
        Port(name="attention_mask", shape=(1, "S"), dtype="fp32",
             meaning="Ignored: padding counts, as it did in training."),
    ),
    outputs=(
        Port(name="encoder_hidden_states", shape=(1, "D", 1, "S"), dtype="fp32",
             meaning="The embedding of each token, channels first."),
    ),
    floor=_DEEP,
)

_TRANSFORMER = Component(
    name="transformer",
    bundle_name="MultiModalDiffusionTransformer",
    network="transformer_sd3",
    folder="transformer",
    derived={"pos_embed.pos_embed": "center_crop"},
    settings=frozenset({"chunk", "lora"}),
    is_palettized=True,
    inputs=(
        Port(name="latent_image_embeddings", shape=("B", "C", "h", "w"), dtype="fp16",
             meaning="The noisy latents."),
        # Fractions of a timestep matter, and fp16 has none above 1024 and halves above 512.
        Port(name="timestep", shape=("B",), dtype="fp32",
             meaning="The training timestep that the noise belongs to."),
        Port(name="token_level_text_embeddings", shape=("B", "D", 1, "S"), dtype="fp16",
             meaning="The embeddings of the prompt's tokens, CLIP's and T5's, channels first."),
        Port(name="pooled_text_embeddings", shape=("B", "P", 1, 1), dtype="fp16",
             meaning="The pooled embeddings of both CLIPs."),
    ),
    outputs=(
        Port(name="denoiser_output", shape=("B", "C", "h", "w"), dtype="fp32",
             meaning="The predicted velocity, from the picture to the noise."),
    ),
    floor=_DEEP,
)

STABLE_DIFFUSION_3 = Family(
    name="sd3",
    title="Stable Diffusion 3",
    components=(
        *_ENCODERS, _T5, _TRANSFORMER,
        *(STABLE_DIFFUSION.component(name) for name in ("vae_decoder", "vae_encoder")),
    ),
    drawing=("text_encoder", "text_encoder_2", "transformer", "vae_decoder"),
    also_drawing=("text_encoder_3",),
    batches=(2,),
    scheduler="flow_euler",
    side_px=16,  # patches of two latent cells
)
