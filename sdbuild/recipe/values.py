"""Parsers of the values that a recipe's fields and the command line's variables may hold.

Each gives a value, or raises ValueError with what is expected. A value comes from TOML (a number, a
list) or from the command line (text); both go through the same parser, so that `quant = 6` and
`quant=6` mean the same and fail alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbuild.base.errors import RecipeError
from sdbuild.base.paths import check_path
from sdbuild.base.suggestions import did_you_mean
from sdbuild.base.units import parse_bytes
from sdbuild.bundle.request import Control
from sdbuild.bundle.schedulers import SCHEDULERS, canonical
from sdbuild.checkpoints import check_place, is_hub

ATTENTIONS = ("original", "split_einsum", "split_einsum_v2")
MOST_SIZES = 16
"""Of one bundle."""
QUANTS = ("none", "1", "2", "3", "4", "6", "8")
ACTIVATIONS = ("none", "8")
FLOORS = (*QUANTS, "w8a8")
"""The words that floors are given for."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A parser of one of some words."""

    allowed: tuple[str, ...]

    def __call__(self, value: Any) -> str:
        """Returns the word."""
        if str(value) not in self.allowed:
            raise ValueError(f"one of {', '.join(self.allowed)}"
                             f"{did_you_mean(str(value), self.allowed)}")
        return str(value)


def choice(*allowed: str) -> Choice:
    """Returns a parser of one of some words."""
    return Choice(allowed)


def attention(value: Any) -> str:
    """Returns a layout, also as Apple's converter spells it: `SPLIT_EINSUM`."""
    return choice(*ATTENTIONS)(value.lower() if isinstance(value, str) else value)


@dataclass(frozen=True, slots=True)
class integer:
    """A parser of whole numbers."""

    least: int
    most: int

    def __call__(self, value: Any) -> int:
        """Returns the number."""
        text = str(value)
        is_integer = text.isascii() and text.isdigit() and len(text) <= len(str(self.most))
        if not is_integer or not self.least <= int(text) <= self.most:
            raise ValueError(f"an integer from {self.least} to {self.most}")
        return int(text)


@dataclass(frozen=True, slots=True)
class number:
    """A parser of numbers."""

    least: float
    most: float

    def __call__(self, value: Any) -> float:
        """Returns the number."""
        try:
            found = float(value)
        except (TypeError, ValueError):
            found = float("nan")
        if isinstance(value, bool) or not self.least <= found <= self.most:
            raise ValueError(f"a number from {self.least:g} to {self.most:g}")
        return found


def text(value: Any) -> str:
    """Text that is UTF-8."""
    try:
        value.encode()
    except (AttributeError, UnicodeEncodeError):  # no text, or not UTF-8 on the command line
        raise ValueError("text") from None
    return value


def _filled(value: Any) -> str:
    if not text(value).strip():
        raise ValueError("text that is not empty")
    return value


def licence(value: Any) -> str:
    """Returns the name of a licence, as the Hub writes it: `creativeml-openrail-m`."""
    found = _filled(value).strip().lower()
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,63}", found):
        raise ValueError("a licence as the Hub names it, such as creativeml-openrail-m or other")
    return found


def names(value: Any) -> tuple[str, ...]:
    """Names, none twice: text with commas between them, or a list."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not parts or not all(
            isinstance(part, str) and part.strip() for part in parts):
        raise ValueError("names with commas between them, or a list of names")
    found = tuple(part.strip() for part in parts)
    if len(set(found)) < len(found):
        raise ValueError("each name once")
    return found


def optional_names(value: Any) -> tuple[str, ...]:
    """Names, or none at all."""
    return () if value in ("", "none", []) else names(value)


def places(value: Any) -> tuple[str, ...]:
    """Places in the order in which they are tried: text with commas between them, or a list."""
    found = value.split(",") if isinstance(value, str) else value
    if not isinstance(found, list) or not found:
        raise ValueError("a location, or several with commas between them, or a list of locations")
    return tuple(_place(place) for place in found)


def _place(value: Any) -> str:
    place = check_place(_filled(value).strip())
    return place if is_hub(place) else check_path(place)


def named_path(value: Any) -> str:
    """Returns the path of something that is read."""
    return check_path(_filled(value))


def _parts(value: Any, form: str) -> list[Any]:
    """Returns the parts of a text with commas between them, or of a list, each of a form."""
    found = value.split(",") if isinstance(value, str) else value
    if not isinstance(found, list) or not found:
        raise ValueError(f"{form}, several with commas between them")
    return found


def loras(value: Any) -> tuple[tuple[str, float], ...]:
    """Files with strengths, from `a.safetensors:0.8,b.safetensors`, or a list of such."""
    found = []
    for part in _parts(value, "FILE:STRENGTH"):
        place, colon, strength = _filled(part).strip().rpartition(":")
        try:
            found.append((_filled(place), number(-100, 100)(strength)))
        except ValueError:
            if colon and not strength.endswith(".safetensors"):
                raise ValueError("FILE:STRENGTH, a number from -100 to 100") from None
            found.append((part.strip(), 1.0))
    return tuple((check_path(place), strength) for place, strength in found)


def embeddings(value: Any) -> tuple[tuple[str, str], ...]:
    """Files with words, from `a.safetensors:mystyle,b.safetensors`, or a list of such; a word is
    empty where none is given."""
    found = []
    for part in _parts(value, "FILE:WORD"):
        place, _, word = _filled(part).strip().rpartition(":")
        if not place or "/" in word or "." in word:
            place, word = part.strip(), ""
        elif not re.fullmatch("[A-Za-z]+", word):
            raise ValueError("FILE:WORD, a word of letters from a to z alone")
        found.append((place, word.lower()))
    return tuple((check_path(_filled(place)), word) for place, word in found)


def sizes(value: Any) -> tuple[tuple[int, int], ...]:
    """Widths and heights in pixels, none twice: from `512x512,512x768`, or a list of such."""
    parts = value if isinstance(value, list) else str(value).split(",")
    found = tuple(size(part.strip() if isinstance(part, str) else part) for part in parts)
    if not found or len(set(found)) < len(found) or len(found) > MOST_SIZES:
        raise ValueError(f"one to {MOST_SIZES} sizes, each once")
    return found


def size(value: Any) -> tuple[int, int]:
    """Width and height in pixels, from `512` or `512x768`."""
    width, x, height = str(value).partition("x")
    sides = []
    for side in (width, height if x else width):
        if not side.isascii() or not side.isdigit() or int(side) % 8 or not 64 <= int(side) <= 2048:
            raise ValueError("512 or WIDTHxHEIGHT in pixels, multiples of 8 from 64 to 2048")
        sides.append(int(side))
    return sides[0], sides[1]


def nbits(value: Any) -> int | float | None:
    """Returns the bits of a palettized weight; None for `none`. With a point it is a float, of bits
    on average."""
    text = str(value)
    if "." in text:
        try:
            return number(1, 8)(text)
        except ValueError:
            raise ValueError("1.0 to 8.0 bits on average, or equal bits: "
                             f"{', '.join(QUANTS)}") from None
    text = choice(*QUANTS)(value)
    return None if text == "none" else int(text)


def activation_bits(value: Any) -> int | None:
    """Returns the bits of a quantized activation; None for `none`."""
    text = choice(*ACTIVATIONS)(value)
    return None if text == "none" else int(text)


def mixed(value: Any) -> tuple[tuple[str, str, int], ...]:
    """Returns the bits of some weights, each a component, a pattern of names and bits: from
    `unet.*conv_in_weight*:8,unet.*conv_out_weight*:8`, or a list of such."""
    parts = value.split(",") if isinstance(value, str) else value
    found = []
    for part in parts if isinstance(parts, list) and parts else [""]:
        component, _, rest = str(part).strip().partition(".")
        pattern, _, bits = rest.rpartition(":")
        if not component or not pattern or bits not in QUANTS[1:]:
            raise ValueError("COMPONENT.PATTERN:BITS, several with commas between them, such as "
                             "unet.*conv_in_weight*:8")
        found.append((component, pattern, int(bits)))
    return tuple(found)


def decibels(value: Any) -> float:
    """Returns a ratio in dB, from `40` or `40dB`."""
    text = str(value)
    return number(0, 120)(text[:-2] if text.lower().endswith("db") else value)


def memory(value: Any) -> int:
    """Returns an amount of memory in bytes."""
    try:
        count = parse_bytes(str(value), "ram")
    except RecipeError:
        count = 0
    if not 1e8 <= count <= 1e14:
        raise ValueError("an amount of memory from 100M, such as 8G")
    return count


def path(value: Any) -> str:
    """Returns a path of something that is written, with `~` for a home, which must be somebody's:
    nothing is put into a folder called `~nobody` that nobody meant."""
    found = check_path(_filled(value))
    try:
        return str(Path(found).expanduser()) if found.startswith("~") else found
    except RuntimeError:
        home = found.partition("/")[0]
        raise ValueError(f"a path: {home} is not the home of a user, ./{found} is a name") from None


def url(value: Any) -> str:
    """Returns a URL, or the path of a folder."""
    return value if "://" in _filled(value) else path(value)


def picture(value: Any) -> str:
    """Returns the path of a picture that is written."""
    found = path(value)
    if not found.lower().endswith((".png", ".jpg", ".jpeg", ".webp")):
        raise ValueError("a path that ends in .png, .jpg or .webp")
    return found


def prompts(value: Any) -> tuple[str, ...]:
    """Prompts, in a list."""
    if not isinstance(value, list) or not 1 <= len(value) <= 16:
        raise ValueError("a list of 1 to 16 prompts")
    return tuple(_filled(prompt) for prompt in value)


def scheduler(value: Any) -> str:
    """Returns a scheduler by our name, or by that of AUTOMATIC1111's web UI: `DPM++ 2M Karras`."""
    found = canonical(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"one of {', '.join(SCHEDULERS)}{did_you_mean(str(value), SCHEDULERS)}")
    return found


def yes(value: Any) -> bool:
    """Yes or no, or TOML's true or false."""
    known = {"yes": True, "no": False, "true": True, "false": False}
    if str(value).lower() not in known:
        raise ValueError("yes or no")
    return known[str(value).lower()]


def image(value: Any) -> str:
    """Returns the absolute path of a picture that is read."""
    return str(Path(path(value)).absolute())


def controls(value: Any) -> tuple[Control, ...]:
    """ControlNets, each as NAME:IMAGE or NAME:IMAGE:SCALE, with commas between them."""
    found = []
    for part in text(value).split(","):
        name, _, rest = part.strip().partition(":")
        place, colon, scale = rest.rpartition(":")
        try:
            strength = number(0, 10)(scale) if colon else 1.0
        except ValueError:
            if _is_scale(place, scale):
                raise ValueError("NAME:IMAGE:SCALE, a scale from 0 to 10") from None
            place, strength = rest, 1.0
        if not name or not (place or rest):
            raise ValueError("NAME:IMAGE or NAME:IMAGE:SCALE, several with commas between them")
        found.append(Control(name, image(place if colon else rest), strength))
    return tuple(found)


def _is_scale(place: str, scale: str) -> bool:
    """Whether what stands behind the last colon is meant as a number, and is not of a file's
    name."""
    try:
        float(scale)
    except ValueError:
        return Path(place).suffix[1:].isalpha() and not Path(scale).suffix[1:].isalpha()
    return True


def as_word(name: str, value: Any) -> str:
    """Returns a value of a field as the command line has it.

    Raises:
        RecipeError: no text stands for it.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | int | float | Path):
        return str(value)
    if isinstance(value, tuple) and name == "size" and all(isinstance(n, int) for n in value):
        return "x".join(map(str, value))
    if isinstance(value, list | tuple):
        return ",".join(as_word(name, part) for part in value)
    raise RecipeError(f"{name} is {type(value).__name__}, expected text, a number or a list")
