"""What a bundle is called: the name of a folder, which shows what was asked for.

    tiny-emoji-dreamy-lora-ink_0.8-512x512-original-6bit-batch1-2chunks-iOS16-1a2b3c

First the recipe, then words for what the command line asks for in place of the recipe's own, then
what every variant has. Last, where there were such words or they cannot say it, a tag: digits of
all that was asked for. It tells checkpoints of one name from each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sdbuild.base.digest import digest
from sdbuild.checkpoints import is_hub

_LONGEST = 24
"""Characters of a word."""
_LONGEST_BYTES = 80
"""Of all words. File systems take names of 255 bytes, and while a bundle is put in place, a longer
one stands beside it."""


def words(asked: Mapping[str, Any]) -> str:
    """The words for what the command line asks for, each after `-`."""
    found = "".join(f"-{word}" for word in _words(asked) if word)
    return found.encode()[:_LONGEST_BYTES].decode(errors="ignore").rstrip("-_.")


def tag(asked: Mapping[str, Any]) -> str:
    """The digits for what the command line asks for, after `-`; none if it asks for nothing."""
    return f"-{digest('variant', dict(asked))[:6]}" if asked else ""


def _words(asked: Mapping[str, Any]) -> Iterator[str]:
    yield _first(asked.get("source", ()))
    yield asked.get("prediction_type", "")
    if "vae" in asked:
        yield f"vae-{_first(asked['vae'])}"
    if "lora" in asked:
        yield "lora"
    for place, strength in asked.get("lora", ()):
        yield _word(place) + (f"_{strength:g}" if strength != 1 else "")


def _first(places: Sequence[str]) -> str:
    """The word for the place that is tried first."""
    return _word(places[0]) if places else ""


def _word(place: str) -> str:
    """What is at a place, in letters, digits and `._-`: a repository, a folder or a file."""
    name = place.rpartition("/")[2]
    name = name.partition("@")[0] if is_hub(place) else name.removesuffix(".safetensors")
    return re.sub(r"[^\w.-]+", "_", name).strip("._-")[:_LONGEST].rstrip("._-")
