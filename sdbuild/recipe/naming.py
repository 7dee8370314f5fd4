"""Names of bundles: of a folder, which shows its settings.

    tiny-emoji-dreamy-lora-ink_0.8-512x512-original-6bit-batch1-2chunks-iOS16-1a2b3c

First the recipe, or the checkpoint if it was given without one, then words for what the command
line asks for in place of the recipe's own, then what every variant has. Last, where there were such
words or they cannot say it, a tag: digits of all that was asked for. It tells checkpoints of one
name from each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdbuild.base import zips
from sdbuild.base.digest import digest
from sdbuild.checkpoints import is_hub, single_file
from sdbuild.recipe.fields import RECIPE_FIELDS
from sdbuild.recipe.sources import ELSEWHERE, Sources

_LONGEST = 24
"""Characters of a word."""
_LONGEST_BYTES = 80
"""Of all words. File systems take names of 255 bytes, and while a bundle is put in place, a longer
one stands beside it."""


def asked(
    fields: Mapping[str, Any], sources: Sources, words: Mapping[str, str], path: Path | None
) -> dict[str, Any]:
    """Returns the settings of the command line that not every name shows, as resolved, not as
    spelled."""
    found = {
        "source": sources.checkpoint.places,
        "config": sources.checkpoint.config,
        **{name: source.places for name, source in sources.elsewhere.items()},
        "controlnet": [place for net in sources.controlnets.values() for place in net.places],
        "lora": [(lora.place, lora.strength) for lora in sources.loras],
        "embedding": [(embedding.place, embedding.word) for embedding in sources.embeddings],
        "components": sorted(fields["components"]),
        "palettize": sorted(fields["palettize"] or ()),
    }
    tagged = [field.name for field in RECIPE_FIELDS if field.is_tagged and field.name in words]
    shown = {name: found.get(name, fields[name]) for name in tagged}
    return shown | ({"model": str(path)} if path else {})


def words(asked: Mapping[str, Any]) -> str:
    """Returns the words for what the command line asks for, each after `-`."""
    found = "".join(f"-{word}" for word in _words(asked) if word)
    return found.encode()[:_LONGEST_BYTES].decode(errors="ignore").rstrip("-_.")


def source(places: Sequence[str]) -> str:
    """Returns the word for a checkpoint: what is at the place that is tried first; may be empty."""
    return _word(places[0]) if places else ""


def tag(asked: Mapping[str, Any]) -> str:
    """Returns the digits for what the command line asks for, after `-`; none if it asks for
    nothing."""
    return f"-{digest('variant', dict(asked))[:6]}" if asked else ""


def _words(asked: Mapping[str, Any]) -> Iterator[str]:
    yield source(asked.get("source", ()))
    yield asked.get("prediction_type", "")
    for name in ELSEWHERE:
        if name in asked:
            yield f"{name.partition('_')[0]}-{source(asked[name])}"
    if "controlnet" in asked:
        yield "control"
    for place in asked.get("controlnet", ()):
        yield _word(place)
    if "lora" in asked:
        yield "lora"
    for place, strength in asked.get("lora", ()):
        yield _word(place) + (f"_{strength:g}" if strength != 1 else "")
    if "embedding" in asked:
        yield "embedding"
    for place, word in asked.get("embedding", ()):
        yield word or _word(place)


def _word(place: str) -> str:
    """Returns a name for a location, in letters, digits and `._-`: a repository, a folder or a
    file."""
    name = place.rpartition("/")[2]
    name = name.partition("@")[0] if is_hub(place) else \
        name.removesuffix(single_file.SUFFIX).removesuffix(zips.SUFFIX)
    return re.sub(r"[^\w.-]+", "_", name).strip("._-")[:_LONGEST].rstrip("._-")
