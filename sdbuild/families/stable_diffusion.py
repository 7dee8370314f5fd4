"""Stable Diffusion 1.x and 2.x."""

from sdbuild.families.controlnet import controlled, controlnet
from sdbuild.families.nouns import Component, Family, Floor, Port

TOKENS = 77
"""S: the length of a prompt in tokens, fixed by CLIP's position table."""

CHECKED_PX = 224
"""The sides of the picture that a safety checker sees, fixed by CLIP's position table."""

_DEEP = Floor(
    reason="fp16 rounds at 2^-11, and deep networks add up; each bit less of a palette costs 6 dB",
    by_quant={"none": 45, "8": 35, "6": 25, "4": 13, "w8a8": 25},
)
"""Of networks whose errors are far from the picture. Set as the built-in checkpoint has it, 5 dB
lower."""

_UNET = Component(
    name="unet",
    bundle_name="Unet",
    network="unet",
    source="unet",
    folder="unet",
    sidecars=("scheduler",),
    inputs=(
        Port(name="sample", shape=("B", "I", "h", "w"), dtype="fp16",
             meaning="The noisy latents."),
        Port(name="timestep", shape=("B",), dtype="fp16",
             meaning="The training timestep that the noise belongs to."),
        Port(name="encoder_hidden_states", shape=("B", "D", 1, "S"), dtype="fp16",
             meaning="The embeddings of the prompt's tokens, channels first."),
    ),
    outputs=(
        Port(name="noise_pred", shape=("B", "C", "h", "w"), dtype="fp32",
             meaning="The predicted noise."),
    ),
    floor=_DEEP,
    settings=frozenset({"prediction", "attention", "chunk", "lora"}),
    is_palettized=True,
)

STABLE_DIFFUSION = Family(
    name="sd",
    title="Stable Diffusion 1.x and 2.x",
    drawing=("text_encoder", "unet", "vae_decoder"),
    components=(
        Component(
            name="text_encoder",
            bundle_name="TextEncoder",
            network="text_encoder",
            folder="text_encoder",
            drop="text_model.",  # transformers 5 left it out of its networks, not of files
            sidecars=("tokenizer",),
            settings=frozenset({"lora", "embedding", "clip_skip"}),
            is_palettized=True,
            inputs=(
                Port(name="input_ids", shape=(1, "S"), dtype="fp32",
                     meaning="The tokens of the prompt, padded."),
            ),
            outputs=(
                Port(name="last_hidden_state", shape=(1, "S", "D"), dtype="fp32",
                     meaning="The embedding of each token."),
                Port(name="pooled_outputs", shape=(1, "D"), dtype="fp32",
                     meaning="The embedding of the end token."),
            ),
            floor=_DEEP,
        ),
        _UNET,
        Component(
            name="vae_decoder",
            bundle_name="VAEDecoder",
            network="vae",
            source="vae",
            folder="vae",
            prefixes=("decoder.", "post_quant_conv."),
            inputs=(
                Port(name="z", shape=(1, "C", "h", "w"), dtype="fp16",
                     meaning="The denoised latents, divided by the scale factor."),
            ),
            outputs=(
                Port(name="image", shape=(1, 3, "H", "W"), dtype="fp32",
                     meaning="The picture, from -1 to 1."),
            ),
            floor=Floor(
                reason="an error here is an error in the picture: 45 dB is about one of 256 levels",
                by_quant={"none": 45},
            ),
        ),
        Component(
            name="vae_encoder",
            bundle_name="VAEEncoder",
            network="vae",
            source="vae",
            folder="vae",
            prefixes=("encoder.", "quant_conv."),
            inputs=(
                Port(name="x", shape=(1, 3, "H", "W"), dtype="fp16",
                     meaning="The picture, from -1 to 1."),
            ),
            outputs=(
                Port(name="latent", shape=(1, "2C", "h", "w"), dtype="fp32",
                     meaning="Mean and log-variance of the latents."),
            ),
            floor=Floor(
                reason="the log-variance has a wide range, the mean decides",
                by_quant={"none": 45},
            ),
        ),
        Component(
            name="safety_checker",
            bundle_name="SafetyChecker",
            network="safety_checker",
            folder="safety_checker",
            is_optional=True,
            never_palettized=("concat",),  # an error in a concept's embedding is one in the verdict
            drop="vision_model.",  # files have the word twice where networks now have it once
            inputs=(
                Port(name="clip_input", shape=(1, 3, CHECKED_PX, CHECKED_PX), dtype="fp16",
                     meaning="The picture as CLIP sees it: resized, cut and normalized."),
                # Hosts send 512 pixels whatever the size of the picture.
                Port(name="images", shape=(1, 512, 512, 3), dtype="fp16",
                     meaning="A picture to black out, channels last."),
                Port(name="adjustment", shape=(1,), dtype="fp16",
                     meaning="Added to all scores: above 0 more is found."),
            ),
            outputs=(
                Port(name="filtered_images", shape=(1, 512, 512, 3), dtype="fp32",
                     meaning="The same picture, black if a concept was found in it."),
                Port(name="has_nsfw_concepts", shape=(1, 1, 1, 1), dtype="fp32",
                     meaning="1 if a concept was found, else 0."),
                Port(name="concept_scores", shape=(1, 17), dtype="fp32",
                     meaning="How far each concept is above its threshold."),
            ),
            floor=Floor(
                reason="a score of 50 dB is off by a thousandth, which the verdict is rounded to",
                by_quant={"none": 50},
            ),
        ),
        controlled(_UNET),
        controlnet(_UNET),
    ),
)
