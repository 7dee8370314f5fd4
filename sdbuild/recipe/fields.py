"""The fields of recipes, which are variables of the command line, too: parser, default, meaning.

A new field is an entry here and an attribute of the part of `Recipe` that it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sdbuild.base.errors import RecipeError
from sdbuild.base.parsing import shown
from sdbuild.base.suggestions import did_you_mean
from sdbuild.bundle.hosts import HOSTS, RNGS, SPACINGS, TOKENIZERS
from sdbuild.bundle.request import PREDICTORS, SEEDS
from sdbuild.bundle.schedulers import SCHEDULERS
from sdbuild.recipe import values
from sdbuild.recipe.values import ACTIVATIONS, ATTENTIONS, QUANTS

TARGETS = {
    "iOS16": "iOS16", "iOS17": "iOS17", "iOS18": "iOS18",
    "macOS13": "iOS16", "macOS14": "iOS17", "macOS15": "iOS18",
}
"""Deployment targets by name, and the opset that each stands for (Core ML names it by iOS)."""

PACKAGES = "packages"
"""The value of `lower` for a source of finished models, of which nothing is lowered."""

PREDICTION_TYPES = ("epsilon", "v_prediction")
PREDICTIONS = ("epsilon", "checkpoint")
LOWERS = ("once", "here", "direct", PACKAGES)
MOST_CHUNKS = 8
COMPILERS = ("auto", "portable", "apple")

REQUIRED = object()
"""The default of a field that every recipe must have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field: `parse` gives its value or raises ValueError with what is expected.

    Attributes:
        default: the word to parse if neither recipe nor command line has the field; None is
            kept as it is, and `REQUIRED` raises an error.
        unit: the short word for its value in help texts, unless all values are `choices`.
        is_tagged: a bundle's name shows it only where the command line gives it, in its tag.
        is_of_checkpoint: it says which checkpoint is built; given on the command line, the
            recipe's lock is of another one and does not hold.
    """

    name: str
    parse: Callable[[Any], Any]
    meaning: str
    default: Any = REQUIRED
    unit: str = "TEXT"
    choices: tuple[str, ...] = ()
    is_tagged: bool = False
    is_of_checkpoint: bool = False


RECIPE_FIELDS = (
    Field(name="source", parse=values.places, unit="LOCATION", is_tagged=True,
          is_of_checkpoint=True,
          meaning="the checkpoint: a folder in diffusers' "
          "layout, a .safetensors file, or hub:owner/name[@revision]"),
    Field(name="config", parse=values.named_path, default=None, unit="FOLDER", is_tagged=True,
          is_of_checkpoint=True, meaning="a folder in diffusers' layout that says what a "
          ".safetensors file does not: configs, tokenizer, scheduler"),
    Field(name="unet", parse=values.places, default=None, unit="LOCATION", is_tagged=True,
          is_of_checkpoint=True, meaning="the U-Net, from another location than the checkpoint, as "
          "few-step ones are published: a folder, a .safetensors file, or "
          "hub:owner/name[@revision]"),
    Field(name="vae", parse=values.places, default=None, unit="LOCATION", is_tagged=True,
          is_of_checkpoint=True, meaning="the autoencoder, from another location than the "
          "checkpoint: a folder, a .safetensors file, or hub:owner/name[@revision]"),
    Field(name="refiner_source", parse=values.places, default=None, unit="LOCATION", is_tagged=True,
          is_of_checkpoint=True, meaning="the refiner of a bundle with both: a folder, a "
          ".safetensors file, or hub:owner/name[@revision]; components must name it, too"),
    Field(name="lora", parse=values.loras, default=None, unit="FILE:STRENGTH", is_tagged=True,
          meaning="LoRAs to merge into the checkpoint, each a "
          ".safetensors file with its strength behind a colon (else 1)"),
    Field(name="embedding", parse=values.embeddings, default=None, unit="FILE:WORD", is_tagged=True,
          meaning="embeddings (textual inversions) to write into text encoders and tokenizer, each "
          "a .safetensors file with its word in prompts behind a colon (else the file's own)"),
    Field(name="controlnet", parse=values.places, default=None, unit="LOCATION,…", is_tagged=True,
          is_of_checkpoint=True, meaning="ControlNets to build with a U-Net for them, each a "
          "folder, a .safetensors file, or hub:owner/name[@revision]"),
    Field(name="prediction_type", parse=values.choice(*PREDICTION_TYPES), default=None,
          choices=PREDICTION_TYPES, is_tagged=True, is_of_checkpoint=True,
          meaning="the U-Net's prediction type, where the checkpoint does not say or is wrong"),
    Field(name="licence", parse=values.licence, default=None, unit="NAME",
          meaning="the checkpoint's licence as the Hub names it, for publish, where its model card "
          "does not say or is wrong"),
    Field(name="size", parse=values.sizes, unit="WxH,…",
          meaning="sizes of images in pixels, WIDTHxHEIGHT; of several the first is that of hosts "
          "which choose none"),
    Field(name="components", parse=values.names, unit="NAME,…", is_tagged=True,
          meaning="the components of the bundle"),
    Field(name="batch", parse=values.integer(1, 2), default=2, choices=("1", "2"),
          meaning="the batch size of the U-Net"),
    Field(name="prediction", parse=values.choice(*PREDICTIONS), default="epsilon",
          choices=PREDICTIONS, is_tagged=True, meaning="the U-Net's output: epsilon, "
          "the noise that hosts expect, or what the checkpoint was trained to predict"),
    Field(name="distilled_guidance", parse=values.number(1, 100), default=None, unit="X",
          is_tagged=True, meaning="the guidance that a U-Net is built for which was distilled to "
          "take it as an input, as LCMs are (default: 8.5)"),
    Field(name="clip_skip", parse=values.integer(1, 24), default="1", unit="N", is_tagged=True,
          meaning="the layer of the text encoder that gives the embedding: 1 the last, 2 the one "
          "before it"),
    Field(name="attention", parse=values.attention, default="original", choices=ATTENTIONS,
          meaning="the layout of attention"),
    Field(name="quant", parse=values.nbits, default="none", choices=QUANTS,
          meaning="bits of a palettized weight; with a point, 4.0, on average: how many each gets "
          "is found by calibration"),
    Field(name="size_mb", parse=values.number(1, 100_000), default=None, unit="MB", is_tagged=True,
          meaning="the size of the U-Net's weights in megabytes: bits are found by calibration"),
    Field(name="quality", parse=values.decibels, default=None, unit="DB", is_tagged=True,
          meaning="the least signal-to-noise ratio that calibration is to expect of the U-Net's "
          "noise: bits are as few as have it"),
    Field(name="bits", parse=values.named_path, default=None, unit="FILE", is_tagged=True,
          meaning="a bit recipe: how many bits each weight gets, by the names of parameters; "
          "FILE:NAME one of several in Apple's analysis"),
    Field(name="mixed", parse=values.mixed, default=None, unit="COMPONENT.PATTERN:BITS",
          is_tagged=True, meaning="other bits than those of quant for weights whose names in the "
          "model fit a pattern"),
    Field(name="group_size", parse=values.integer(1, 4096), default=None, unit="N", is_tagged=True,
          meaning="the output channels of a weight that share a table (default: all); needs "
          "target=iOS18"),
    Field(name="activations", parse=values.activation_bits, default="none", choices=ACTIVATIONS,
          meaning="bits of the U-Net's quantized activations; its weights have 8 bits then "
          "(W8A8), whatever quant says; needs target=iOS17 or later"),
    Field(name="calibrate", parse=values.named_path, default=None, unit="FILE", is_tagged=True,
          meaning="the prompts of calibration, a text file with one on each line"),
    Field(name="palettize", parse=values.optional_names, default=None,
          unit="NAME,…", is_tagged=True,
          meaning="the components to palettize (default: text encoders and U-Nets)"),
    Field(name="chunk", parse=values.integer(1, MOST_CHUNKS), default=1,
          choices=tuple(map(str, range(1, MOST_CHUNKS + 1))),
          meaning="the number of models to split the U-Net into; hosts run 1 or 2"),
    Field(name="target", parse=values.choice(*TARGETS), default="iOS16", choices=tuple(TARGETS),
          meaning="the minimum deployment target"),
    Field(name="lower", parse=values.choice(*LOWERS), default="once", choices=LOWERS,
          meaning="the origin of programs: lowered once for all checkpoints of an architecture "
          "(here, even if sdbuild ships one), converted directly, or taken from a source of "
          "finished packages"),
    Field(name="compiler", parse=values.choice(*COMPILERS), default="auto", choices=COMPILERS,
          meaning="the compiler of the models"),
)
OF_CHECKPOINT = tuple(field.name for field in RECIPE_FIELDS if field.is_of_checkpoint)
CHECK_FIELDS = (
    Field(name="prompts", parse=values.prompts, meaning="the images by which a bundle is judged",
          default=["a photograph of a cat", "a bowl of fruit on a wooden table"]),
    Field(name="accepts", parse=values.choice("broken"), default=None,
          meaning="the worst verdict on images that is accepted"),
    Field(name="reason", parse=values.text, default="", meaning="the reason to accept it"),
)
DRAW_FIELDS = (
    Field(name="prompt", parse=values.text, default="a photograph of a cat",
          meaning="the text prompt"),
    Field(name="negative", parse=values.text, default="", meaning="the negative prompt"),
    Field(name="seed", parse=values.integer(0, SEEDS - 1), default=1, unit="N",
          meaning="the random seed; seed=$RANDOM is another each time, as -1 is elsewhere"),
    Field(name="steps", parse=values.integer(1, 500), default=25, unit="N",
          meaning="the number of denoising steps"),
    Field(name="guidance", parse=values.number(0, 100), default=7.5, unit="X",
          meaning="the scale of classifier-free guidance"),
    Field(name="scheduler", parse=values.scheduler, default="dpm", choices=tuple(SCHEDULERS),
          meaning="the scheduler, also by other names: \"DPM++ 2M Karras\""),
    Field(name="count", parse=values.integer(1, 256), default=1, unit="N",
          meaning="the number of images, one seed each"),
    Field(name="host", parse=values.choice(*HOSTS), default="diffusers", choices=tuple(HOSTS),
          meaning="the host whose image is generated"),
    Field(name="rng", parse=values.choice(*RNGS), default=None, choices=RNGS,
          meaning="the random numbers, if not the host's own"),
    Field(name="tokenizer", parse=values.choice(*TOKENIZERS), default=None, choices=TOKENIZERS,
          meaning="the tokenizer, if not the host's own"),
    Field(name="spacing", parse=values.choice(*SPACINGS), default=None, choices=SPACINGS,
          meaning="the spacing of timesteps, if not the host's own"),
    Field(name="karras", parse=values.yes, default=None, choices=("yes", "no"),
          meaning="the spacing of sigmas by Karras et al."),
)
INPUT_FIELDS = (
    Field(name="image", parse=values.image, default=None, unit="FILE",
          meaning="an image to begin with"),
    Field(name="strength", parse=values.number(0, 1), default=None, unit="X",
          meaning="the share of it to replace, from 0 to 1"),
    Field(name="mask", parse=values.image, default=None, unit="FILE",
          meaning="an image that is white where the first one is replaced"),
    Field(name="control", parse=values.controls, default=None, unit="NAME:FILE:X",
          meaning="ControlNets of the bundle, each with its image and how strongly it counts"),
    Field(name="refiner", parse=values.number(0, 1), default=None, unit="X",
          meaning="the share of the steps after which the bundle's refiner takes over"),
    Field(name="number", parse=values.integer(1, 256), default=None, unit="N",
          meaning="of count images, generate the N-th alone"),
)
"""Fields of images that the command line gives, and no recipe."""
VARIANT_FIELD = Field(name="variant", parse=values.text, default=None, unit="FOLDER",
                      meaning="the folder of a finished bundle that has several: "
                      "split_einsum/compiled")
IMAGE_SIZE_FIELD = Field(name="size", parse=values.size, default=None, unit="WxH",
                         meaning="the size of images, of those that a finished bundle has")
PREVIEWS_FIELD = Field(name="previews", parse=values.integer(1, 500), default=None, unit="N",
                       meaning="write a preview beside the image every N steps")
AGAINST_FIELD = Field(name="against", parse=values.named_path, default=None, unit="REFERENCE",
                      meaning="the reference of images: a folder of images, or a finished "
                      "bundle")
PLACE_FIELDS = (
    Field(name="cache", parse=values.path, unit="FOLDER", meaning="the folder of the store"),
    Field(name="bundle", parse=values.path, unit="FOLDER",
          meaning="the folder for the finished bundle"),
    Field(name="out", parse=values.picture, unit="FILE.png",
          meaning="the image to write: .png, .jpg or .webp"),
    Field(name="report", parse=values.path, unit="FILE", meaning="a file: of generate for timings, "
          "as JSON; of report the page, .html"),
    Field(name="trace", parse=values.path, unit="FOLDER",
          meaning="a folder for the arrays of each step of an image, as .npy"),
)
REMOTE_FIELD = Field(name="remote", parse=values.url, unit="URL",
                     meaning="a store that machines share: s3://bucket/folder, another URL "
                     "(docs/remote.md), or a folder")
RAM_FIELD = Field(name="ram", parse=values.memory, unit="SIZE",
                  meaning="the memory that all steps may use together")
PREDICTOR_FIELD = Field(name="predictor", parse=values.choice(*PREDICTORS), default="auto",
                        choices=PREDICTORS, meaning="the runtime of the models of an image")
MODEL_FIELD = Field(name="model", parse=values.named_path, unit="RECIPE",
                    meaning="a recipe's name, or its file")
SETTING_FIELDS = (*PLACE_FIELDS, REMOTE_FIELD, RAM_FIELD, PREDICTOR_FIELD)
"""Fields that no bundle depends on: `SDBUILD_CACHE` and `sdbuild.toml` set them too."""
FLOOR_FIELD = Field(name="floor", parse=values.number(0, 200), meaning="the least PSNR in dB")
VARIABLES = {f.name: f for f in (
    MODEL_FIELD, *RECIPE_FIELDS, *DRAW_FIELDS, *INPUT_FIELDS, VARIANT_FIELD, PREVIEWS_FIELD,
    AGAINST_FIELD, *SETTING_FIELDS,
)}


def parse(field: Field, value: object, where: str) -> Any:
    """Returns the value of `field`.

    Raises:
        RecipeError: it is not what the field may hold; says where it stands.
    """
    try:
        return field.parse(value)
    except ValueError as error:
        raise RecipeError(
            f"{where}: {field.name} is {_short(value)}, expected {error}",
            hint=f"{field.name}: {field.meaning}",
            field=field.name, value=value,
        ) from None


def _short(value: object) -> str:
    said = repr(value)
    return said if len(said) <= 200 else shown(value)


def check_variables(words: Mapping[str, str]) -> None:
    """Makes sure that every `name=value` word on the command line has a name that we know.

    Raises:
        RecipeError: an unknown name, with the nearest known one.
    """
    for name in words:
        if name not in VARIABLES:
            raise RecipeError(
                f"unknown variable {shown(name)}{did_you_mean(name, VARIABLES)}",
                hint="sdbuild build --help lists the variables",
                variable=name,
            )
