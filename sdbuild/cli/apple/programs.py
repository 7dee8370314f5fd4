"""The programs of apple/ml-stable-diffusion and their flags, as data.

Source:
    Names, defaults and meanings: apple/ml-stable-diffusion at e12202c, its README and the parsers
    of `python_coreml_stable_diffusion/`.
"""

from __future__ import annotations

from sdbuild.cli.apple.flags import MANY, ONE, Flag, Program, integer
from sdbuild.recipe.fields import TARGETS

PACKAGE = "python_coreml_stable_diffusion"
DEFAULT_MODEL = "CompVis/stable-diffusion-v1-4"
COMPUTE_UNITS = ("ALL", "CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE")
ATTENTIONS = ("ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2")
PARTS = {
    "convert_text_encoder": ("text_encoder", "text_encoder_2"),
    "convert_vae_decoder": ("vae_decoder",),
    "convert_vae_encoder": ("vae_encoder",),
    "convert_unet": ("unet",),
    "convert_safety_checker": ("safety_checker",),
    "convert_mmdit": ("transformer",),
    "include_t5": ("text_encoder_3",),
}
"""The components that each flag converts, of those that the family has."""

SCHEDULERS = {
    "DDIM": "ddim", "DPMSolverMultistep": "dpm", "EulerAncestralDiscrete": "euler_a",
    "EulerDiscrete": "euler", "LMSDiscrete": "lms", "PNDM": "pndm",
}
"""The names of schedulers, and ours."""

FLAGS = {
    "source": "--model-version", "vae": "--custom-vae-version", "size": "--latent-h and --latent-w",
    "refiner_source": "--refiner-version", "controlnet": "--convert-controlnet",
    "prompt": "--prompt", "negative": "--negative-prompt", "seed": "--seed",
    "steps": "--num-inference-steps", "guidance": "--guidance-scale",
    "control": "--controlnet-inputs", "batch": "--unet-batch-one",
}
"""The flags that give fields of recipes and images their values."""

_CLIP = "https://huggingface.co/openai/clip-vit-base-patch32/resolve/main"
_T5 = "https://huggingface.co/google-t5/t5-small/resolve/main"
_MODEL = Flag("--model-version", "the checkpoint: a repository of the Hub, or a folder", ONE,
              DEFAULT_MODEL)
_UNITS = Flag("--compute-unit", "the processors that models are made to run on", ONE, "ALL",
              choices=COMPUTE_UNITS)
_VAE = Flag("--custom-vae-version", "another autoencoder than the checkpoint's", ONE)

TORCH2COREML = Program(
    command="torch2coreml", module=f"{PACKAGE}.torch2coreml",
    settings=("cache", "remote", "ram", "config", "lora", "embedding", "prediction_type",
              "prediction", "palettize", "distilled_guidance", "lower", "compiler"),
    flags=(
        Flag("--convert-text-encoder", "convert the text encoder, or both of them"),
        Flag("--convert-vae-decoder", "convert the decoder of the autoencoder"),
        Flag("--convert-vae-encoder", "convert the encoder of the autoencoder"),
        Flag("--convert-unet", "convert the U-Net"),
        Flag("--convert-mmdit", "convert the transformer of Stable Diffusion 3"),
        Flag("--convert-safety-checker", "convert the safety checker"),
        Flag("--convert-controlnet", "convert ControlNets", MANY),
        _MODEL,
        Flag("--refiner-version", "a refiner of SDXL, converted beside the U-Net", ONE),
        _VAE,
        _UNITS,
        Flag("--latent-h", "rows of the latents, an eighth of the image's height", ONE,
             parse=integer),
        Flag("--latent-w", "columns of the latents, an eighth of the image's width", ONE,
             parse=integer),
        Flag("--text-token-sequence-length", "tokens of a prompt", ONE, parse=integer),
        Flag("--text-encoder-hidden-size", "the width of a prompt's embedding", ONE,
             parse=integer),
        Flag("--attention-implementation", "the layout of attention", ONE, "SPLIT_EINSUM",
             choices=ATTENTIONS),
        Flag("-o", "the folder for the packages", ONE, "."),
        Flag("--check-output-correctness", "compare each model with its original"),
        Flag("--chunk-unet", "cut the U-Net in two, too"),
        Flag("--quantize-nbits", "bits of the weights of U-Nets, text encoders and ControlNets",
             ONE, parse=integer, choices=(1, 2, 4, 6, 8)),
        Flag("--unet-support-controlnet", "the U-Net for ControlNets in place of the other"),
        Flag("--unet-batch-one", "a U-Net of batch one"),
        Flag("--include-t5", "the third text encoder of Stable Diffusion 3"),
        Flag("--bundle-resources-for-swift-cli", "compile the models into the folder Resources"),
        Flag("--text-encoder-vocabulary-url", "the vocabulary of the tokenizer", ONE,
             f"{_CLIP}/vocab.json"),
        Flag("--text-encoder-merges-url", "the merges of the tokenizer", ONE,
             f"{_CLIP}/merges.txt"),
        Flag("--text-encoder-t5-url", "T5, compiled", ONE),
        Flag("--text-encoder-t5-config-url", "the config of T5's tokenizer", ONE,
             f"{_T5}/tokenizer_config.json"),
        Flag("--text-encoder-t5-data-url", "T5's tokenizer", ONE, f"{_T5}/tokenizer.json"),
        Flag("--min-deployment-target", "the minimum deployment target", ONE, "macOS13",
             choices=tuple(TARGETS)),
        Flag("--xl-version", "the checkpoint is of SDXL"),
        Flag("--sd3-version", "the checkpoint is of Stable Diffusion 3"),
    ),
)

PIPELINE = Program(
    command="pipeline", module=f"{PACKAGE}.pipeline",
    settings=("predictor", "prediction_type", "rng", "tokenizer", "spacing", "karras", "refiner"),
    flags=(
        Flag("--prompt", "the text prompt", ONE, is_required=True),
        Flag("-i", "the folder with the packages, or with Resources", ONE, is_required=True),
        Flag("-o", "the folder for the image", ONE, is_required=True),
        Flag("--seed", "the random seed", ONE, 93, integer, short="-s"),
        _MODEL,
        _UNITS,
        Flag("--scheduler", "the scheduler, if not the checkpoint's own", ONE,
             choices=tuple(SCHEDULERS)),
        Flag("--num-inference-steps", "the number of denoising steps", ONE, 50, integer),
        Flag("--guidance-scale", "the scale of classifier-free guidance", ONE, 7.5, float),
        Flag("--controlnet", "ControlNets, as they were named when they were converted", MANY),
        Flag("--controlnet-inputs", "an image for each of them", MANY),
        Flag("--negative-prompt", "the negative prompt", ONE),
        Flag("--unet-batch-one", "a U-Net of batch one; the models themselves say it"),
        Flag("--model-sources", "which models are used, where both kinds are there", ONE,
             choices=("packages", "compiled")),
    ),
)

CHUNK = Program(
    command="chunk", module=f"{PACKAGE}.chunk_mlprogram",
    flags=(
        Flag("--mlpackage-path", "the package to cut in two", ONE, is_required=True),
        Flag("-o", "the folder for the chunks", ONE, is_required=True),
        Flag("--remove-original", "remove the package when the chunks are written"),
        Flag("--check-output-correctness", "compare what the chunks give with the package"),
        Flag("--merge-chunks-in-pipeline-model", "one package that runs both chunks"),
    ),
)

PRE_ANALYSIS = Program(
    command="mixed-bit-compression-pre-analysis",
    module=f"{PACKAGE}.mixed_bit_compression_pre_analysis",
    flags=(
        _MODEL,
        Flag("-o", "the folder for the analysis", ONE, "."),
        Flag("--default-nbits", "bits of weights that are not compressed", ONE, 16, integer),
        Flag("--num-recipes", "how many mixtures are proposed", ONE, 7, integer),
        _VAE,
    ),
)

APPLY = Program(
    command="mixed-bit-compression-apply", module=f"{PACKAGE}.mixed_bit_compression_apply",
    flags=(
        Flag("--mlpackage-path", "the package to compress", ONE, is_required=True),
        Flag("--pre-analysis-json-path", "the analysis", ONE, is_required=True),
        Flag("--selected-recipe", "the mixture in it", ONE, is_required=True),
        Flag("-o", "the package to write", ONE, is_required=True),
        _VAE,
    ),
)

ACTIVATIONS = Program(
    command="activation-quantization", module=f"{PACKAGE}.activation_quantization",
    flags=(
        Flag("-o", "the folder for what is observed, and for the model", ONE, is_required=True),
        Flag("--model-version", "the checkpoint: a repository of the Hub, or a folder", ONE,
             is_required=True),
        Flag("--generate-calibration-data", "record what the U-Net is given"),
        Flag("--layerwise-sensitivity", "quantize one layer at a time, and measure images"),
        Flag("--quantize-pytorch", "quantize the layers that lose little, and convert"),
        Flag("--calibration-nsamples", "the number of samples of what the U-Net is given", ONE,
             parse=integer),
        Flag("--seed", "the random seed", ONE, 50, integer),
        Flag("--conv-psnr", "the least PSNR of images with a quantized convolution", ONE, 40.0,
             float),
        Flag("--attn-psnr", "the least PSNR of images with quantized attention", ONE, 30.0, float),
    ),
)

PROJECTION = Program(
    command="multilingual-projection", module=f"{PACKAGE}.multilingual_projection",
    flags=(
        Flag("--input-path", "the projection, in TorchScript", ONE, is_required=True),
        Flag("--output-dir", "the folder for the model", ONE, is_required=True),
    ),
)
