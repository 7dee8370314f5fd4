"""The strength of an adapter: alpha and rank as peft and diffusers write them next to its tensors.

diffusers keeps them in a safetensors file's metadata, as JSON under `lora_adapter_metadata`, with
the component before each name; peft in `adapter_config.json` beside the file.

To peft a pattern is a regular expression. Here it is a name, or the end of one, as diffusers and
all examples write it; an expression from a file is never run, because it may take forever.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdbuild.base.errors import SourceError
from sdbuild.base.parsing import Fields, json_file, json_object, shown

METADATA = "lora_adapter_metadata"
"""The key of the file's metadata in which diffusers stores the config."""

CONFIG = "adapter_config.json"
"""The file in which peft stores the config."""

_LITERAL = re.compile(r"\^?((?:[\w-]|\\?\.)+)\$?", re.ASCII)
_MOST = 1 << 20
"""More than any alpha or rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """The settings of an adapter: for all layers, and for those that a name or its end matches."""

    alpha: float | None = None
    rank: int | None = None
    alphas: Mapping[str, float] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)
    is_rank_stabilized: bool = False
    is_dora: bool = False

    def scale(self, layer: str, rank: int | None) -> float:
        """Returns the factor of a layer's update: alpha / rank, or alpha / √rank if
        rank-stabilized.

        Args:
            rank: of the tensors; None if they do not show it.

        Returns:
            1 where no alpha or no rank is known.
        """
        alpha = _matched(self.alphas, layer, self.alpha)
        rank = rank or _matched(self.ranks, layer, self.rank)
        if alpha is None or rank is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.is_rank_stabilized else rank)


def from_metadata(path: Path, metadata: Mapping[str, str]) -> dict[str, Adapter]:
    """Returns the adapters by component, from the metadata of a safetensors file.

    Raises:
        SourceError: the metadata is not what diffusers writes.
    """
    if METADATA not in metadata:
        return {}
    where = f"{path}: {METADATA}"
    parts: dict[str, dict[str, Any]] = {}
    for name, value in json_object(metadata[METADATA], where, SourceError).items():
        component, _, rest = name.partition(".")
        parts.setdefault(component, {})[rest] = value
    return {component: _adapter(Fields(values, f"{where}: {shown(component)}", SourceError))
            for component, values in parts.items()}


def read_peft_config(path: Path) -> Adapter:
    """Returns the adapter that peft describes in the file beside the tensors.

    Raises:
        SourceError: there is none, or it is not what peft writes.
    """
    config = path.with_name(CONFIG)
    if not config.is_file():
        raise SourceError(
            f"{path}: the LoRA is an adapter as peft writes it, whose alpha is in {CONFIG} beside "
            "it, and there is no such file",
            hint=f"copy {CONFIG} from where it was downloaded into the same folder",
        )
    return _adapter(Fields(json_file(config, SourceError), str(config), SourceError))


def _adapter(found: Fields) -> Adapter:
    name = "lora_alpha" if "lora_alpha" in found.values else "alpha"
    return Adapter(
        alpha=_number(found, name, default=None),
        rank=_rank(found, "r", default=None),
        alphas=_patterns(found, "alpha_pattern", _number),
        ranks=_patterns(found, "rank_pattern", _rank),
        is_rank_stabilized=found.flag("use_rslora", default=False),
        is_dora=found.flag("use_dora", default=False),
    )


def _number(found: Fields, name: str, **default: Any) -> float:
    return found.number(name, low=-_MOST, high=_MOST, **default)


def _rank(found: Fields, name: str, **default: Any) -> int:
    return found.integer(name, low=1, high=_MOST, **default)


def _patterns(
    found: Fields, name: str, value: Callable[[Fields, str], float]
) -> dict[str, Any]:
    patterns = found.fields(name, default={})
    made = {}
    for key in patterns.values:
        if not _LITERAL.fullmatch(key):
            raise SourceError(
                f"{found.where}: {name} has {shown(key)}, expected the name of a layer, or its end",
                hint="a regular expression from a file is not run: write the names of the layers "
                     "that it matches",
            )
        made[key] = value(patterns, key)
    return made


def _matched(patterns: Mapping[str, Any], layer: str, default: Any) -> Any:
    """Returns the value of the first pattern that the layer's name is, or ends with."""
    for pattern, value in patterns.items():
        name = pattern.strip("^$").replace("\\", "")
        if layer == name or (not pattern.startswith("^") and layer.endswith(f".{name}")):
            return value
    return default
