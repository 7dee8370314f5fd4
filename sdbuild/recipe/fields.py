"""What a recipe's fields and the command line's variables may hold: one parser each.

A value comes from TOML (a number, a list) or from the command line (text); both go through the
same parser, so that `quant = 6` and `quant=6` mean the same and fail alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbuild.base.errors import RecipeError
from sdbuild.base.parsing import shown
from sdbuild.base.paths import check_path
from sdbuild.base.suggestions import did_you_mean
from sdbuild.base.units import parse_bytes
from sdbuild.checkpoints import check_place, is_hub

TARGETS = {
    "iOS16": "iOS16", "iOS17": "iOS17", "iOS18": "iOS18",
    "macOS13": "iOS16", "macOS14": "iOS17", "macOS15": "iOS18",
}
"""Deployment targets by name, and the opset that each stands for (Core ML names it by iOS)."""

ATTENTIONS = ("original", "split_einsum", "split_einsum_v2")
QUANTS = ("none", "1", "2", "3", "4", "6", "8")
SCHEDULERS = ("ddim", "dpm", "euler", "pndm")
PREDICTION_TYPES = ("epsilon", "v_prediction")
PREDICTIONS = ("epsilon", "checkpoint")
LOWERS = ("once", "direct")
COMPILERS = ("auto", "portable", "apple")


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field: `parse` gives its value or raises ValueError with what is expected.

    A short word, `unit`, stands for its value in help texts, unless all values are `choices`.
    """

    name: str
    parse: Callable[[Any], Any]
    meaning: str
    unit: str = "TEXT"
    choices: tuple[str, ...] = ()


def _choice(*allowed: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if str(value) not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}{did_you_mean(str(value), allowed)}")
        return str(value)
    return parse


def _attention(value: Any) -> str:
    """A layout, also as Apple's converter spells it: `SPLIT_EINSUM`."""
    return _choice(*ATTENTIONS)(value.lower() if isinstance(value, str) else value)


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        text = str(value)
        is_whole = text.isascii() and text.isdigit() and len(text) <= len(str(most))
        if not is_whole or not least <= int(text) <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return int(text)
    return parse


def _number(least: float, most: float) -> Callable[[Any], float]:
    def parse(value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if isinstance(value, bool) or not least <= number <= most:
            raise ValueError(f"a number from {least:g} to {most:g}")
        return number
    return parse


def _text(value: Any) -> str:
    try:
        value.encode()
    except (AttributeError, UnicodeEncodeError):  # no text, or not UTF-8 on the command line
        raise ValueError("text") from None
    return value


def _filled(value: Any) -> str:
    if not _text(value).strip():
        raise ValueError("text that is not empty")
    return value


def _names(value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(p, str) and p.strip() for p in parts):
        raise ValueError("names with commas between them, or a list of names")
    names = tuple(part.strip() for part in parts)
    if len(set(names)) < len(names):
        raise ValueError("each name once")
    return names


def _optional_names(value: Any) -> tuple[str, ...]:
    return () if value in ("", "none", []) else _names(value)


def _places(value: Any) -> tuple[str, ...]:
    """Places in the order in which they are tried: text with commas between them, or a list."""
    places = value.split(",") if isinstance(value, str) else value
    if not isinstance(places, list) or not places:
        raise ValueError("a place, or several with commas between them, or a list of places")
    return tuple(_place(place) for place in places)


def _place(value: Any) -> str:
    place = check_place(_filled(value).strip())
    return place if is_hub(place) else check_path(place)


def _named_path(value: Any) -> str:
    return check_path(_filled(value))


def _loras(value: Any) -> tuple[tuple[str, float], ...]:
    """Files with strengths, from `a.safetensors:0.8,b.safetensors`, or a list of such."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not parts:
        raise ValueError("FILE:STRENGTH, several with commas between them")
    found = []
    for part in parts:
        place, colon, strength = _filled(part).strip().rpartition(":")
        try:
            found.append((_filled(place), _number(-100, 100)(strength)))
        except ValueError:
            if colon and not strength.endswith(".safetensors"):
                raise ValueError("FILE:STRENGTH, a number from -100 to 100") from None
            found.append((part.strip(), 1.0))
    return tuple((check_path(place), strength) for place, strength in found)


def _size(value: Any) -> tuple[int, int]:
    """Width and height in pixels, from `512` or `512x768`."""
    width, x, height = str(value).partition("x")
    sides = []
    for side in (width, height if x else width):
        if not side.isascii() or not side.isdigit() or int(side) % 8 or not 64 <= int(side) <= 2048:
            raise ValueError("512 or WIDTHxHEIGHT in pixels, multiples of 8 from 64 to 2048")
        sides.append(int(side))
    return sides[0], sides[1]


def _nbits(value: Any) -> int | None:
    text = _choice(*QUANTS)(value)
    return None if text == "none" else int(text)


def _memory(value: Any) -> int:
    try:
        count = parse_bytes(str(value), "ram")
    except RecipeError:
        count = 0
    if not 1e8 <= count <= 1e14:
        raise ValueError("an amount of memory from 100M, such as 8G")
    return count


def _path(value: Any) -> str:
    """A path of something that is written, with `~` for a home, which must be somebody's: nothing
    is put into a folder called `~nobody` that nobody meant."""
    path = check_path(_filled(value))
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        home = path.partition("/")[0]
        raise ValueError(f"a path: {home} is nobody's home here, ./{path} is a name") from None


def _url(value: Any) -> str:
    return value if "://" in _filled(value) else _path(value)


def _picture(value: Any) -> str:
    path = _path(value)
    if not path.lower().endswith(".png"):
        raise ValueError("a path that ends in .png")
    return path


def _prompts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= 16:
        raise ValueError("a list of 1 to 16 prompts")
    return tuple(_filled(prompt) for prompt in value)


RECIPE_FIELDS = (
    Field(name="source", parse=_places, unit="PLACE",
          meaning="the checkpoint: a folder in diffusers' "
          "layout, a .safetensors file, or hub:owner/name[@revision]"),
    Field(name="config", parse=_named_path, unit="FOLDER",
          meaning="a folder in diffusers' layout that says what a "
          ".safetensors file does not: configs, tokenizer, scheduler"),
    Field(name="vae", parse=_places, unit="PLACE",
          meaning="the autoencoder, from another place than the "
          "checkpoint: a folder, a .safetensors file, or hub:owner/name[@revision]"),
    Field(name="lora", parse=_loras, unit="FILE:STRENGTH",
          meaning="LoRAs to merge into the checkpoint, each a "
          ".safetensors file with its strength behind a colon (else 1)"),
    Field(name="prediction_type", parse=_choice(*PREDICTION_TYPES),
          choices=PREDICTION_TYPES, meaning="what the U-Net "
          "predicts, where the checkpoint does not say or is wrong"),
    Field(name="size", parse=_size, unit="WxH", meaning="pixels of a picture, WIDTHxHEIGHT"),
    Field(name="components", parse=_names, unit="NAME,…", meaning="the components of the bundle"),
    Field(name="batch", parse=_whole(1, 2), choices=("1", "2"),
          meaning="the batch size of the U-Net"),
    Field(name="prediction", parse=_choice(*PREDICTIONS), choices=PREDICTIONS,
          meaning="what the U-Net gives: epsilon, "
          "the noise that hosts expect, or what the checkpoint was trained to predict"),
    Field(name="attention", parse=_attention, choices=ATTENTIONS,
          meaning="the layout of attention"),
    Field(name="quant", parse=_nbits, choices=QUANTS, meaning="bits of a palettized weight"),
    Field(name="palettize", parse=_optional_names, unit="NAME,…",
          meaning="the components to palettize"),
    Field(name="chunk", parse=_whole(1, 2), choices=("1", "2"),
          meaning="how many models the U-Net is split into"),
    Field(name="target", parse=_choice(*TARGETS), choices=tuple(TARGETS),
          meaning="the minimum deployment target"),
    Field(name="lower", parse=_choice(*LOWERS), choices=LOWERS,
          meaning="whether programs are lowered once "
          "for all checkpoints of an architecture, or converted directly"),
    Field(name="compiler", parse=_choice(*COMPILERS), choices=COMPILERS,
          meaning="the compiler of the models"),
)
CHECK_FIELDS = (
    Field(name="prompts", parse=_prompts, meaning="the pictures by which a bundle is judged"),
    Field(name="accepts", parse=_choice("broken"), meaning="the worst verdict on pictures that "
          "palettes may lead to"),
    Field(name="reason", parse=_text, meaning="why it is accepted"),
)
DRAW_FIELDS = (
    Field(name="prompt", parse=_text, meaning="the text prompt"),
    Field(name="negative", parse=_text, meaning="the negative prompt"),
    Field(name="seed", parse=_whole(0, 2**63 - 1), unit="N", meaning="the random seed"),
    Field(name="steps", parse=_whole(1, 500), unit="N", meaning="the number of denoising steps"),
    Field(name="guidance", parse=_number(0, 100), unit="X",
          meaning="the scale of classifier-free guidance"),
    Field(name="scheduler", parse=_choice(*SCHEDULERS), choices=SCHEDULERS,
          meaning="the scheduler"),
    Field(name="count", parse=_whole(1, 256), unit="N",
          meaning="the number of images, one seed each"),
)
PLACE_FIELDS = (
    Field(name="cache", parse=_path, unit="FOLDER", meaning="the folder of the store"),
    Field(name="bundle", parse=_path, unit="FOLDER", meaning="the folder for the finished bundle"),
    Field(name="out", parse=_picture, unit="FILE.png", meaning="the image to write"),
    Field(name="report", parse=_path, unit="FILE", meaning="a file for timings, as JSON"),
)
REMOTE_FIELD = Field(name="remote", parse=_url, unit="URL", meaning="a store that machines share: "
                     "s3://bucket/folder, another URL (docs/remote.md), or a folder")
RAM_FIELD = Field(name="ram", parse=_memory, unit="SIZE",
                  meaning="the memory that all steps may use together")
MODEL_FIELD = Field(name="model", parse=_named_path, unit="RECIPE",
                    meaning="a recipe's name, or its file")
SETTING_FIELDS = (*PLACE_FIELDS, REMOTE_FIELD, RAM_FIELD)
"""Fields that no bundle depends on: `SDBUILD_CACHE` and `sdbuild.toml` set them too."""
FLOOR_FIELD = Field(name="floor", parse=_number(0, 200), meaning="the least PSNR in dB")
VARIABLES = {f.name: f for f in (
    MODEL_FIELD, *RECIPE_FIELDS, *DRAW_FIELDS, *SETTING_FIELDS,
)}


def parse(field: Field, value: object, where: str) -> Any:
    """The value of `field`.

    Raises:
        RecipeError: it is not what the field may hold; says where it stands.
    """
    try:
        return field.parse(value)
    except ValueError as error:
        raise RecipeError(
            f"{where}: {field.name} is {_short(value)}, expected {error}",
            hint=f"{field.name} is {field.meaning}",
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
                hint=f"the variables are: {', '.join(VARIABLES)}",
                variable=name,
            )
