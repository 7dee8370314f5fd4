"""LoRAs: small files that say how a checkpoint's weights change, by few numbers for each.

`key_names.py` reads the names of their tensors, `deltas.py` has the kinds, `config.py` their
sidecar configs, and `layers.py` the names that a network's layers have.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints.loras import key_names
from sdbuild.checkpoints.loras.config import Adapter, from_metadata, read_peft_config
from sdbuild.checkpoints.loras.deltas import KINDS, Delta, Full, Slices, fits
from sdbuild.checkpoints.loras.key_names import flattened
from sdbuild.checkpoints.loras.layers import homes, layers
from sdbuild.checkpoints.mmdit import Home
from sdbuild.safetensors.decode import NUMBERS, to_array
from sdbuild.safetensors.tensors import Tensor, metadata, table

_SHOWN = 8
_LONGEST = 200
_PROMPTED = (".attn2.to_k.weight", ".attn2.to_v.weight")
"""Suffixes of a U-Net's weights whose input width is that of the prompt's embedding."""
_GENERATIONS = {768: "1", 1024: "2", 2048: "XL", 1280: "XL's refiner"}
_HINT = ("a LoRA changes the checkpoints of the model that it was made for: here one of "
         "Stable Diffusion 1, 2, XL or 3, for its U-Net or transformer and text encoders")
_MAGNITUDES = ("dora_scale", "lora_magnitude_vector")


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """An addition to the weight or the bias of a layer: scale · delta.

    With a `magnitude` it is a DoRA: the sum is divided by its norm and multiplied with that, for
    each output or `is_by_input`. `tensors` are all that it is made of.
    """

    layer: str
    target: str
    delta: Delta
    scale: float
    tensors: tuple[Tensor, ...]
    magnitude: Tensor | None = None

    @property
    def is_by_input(self) -> bool:
        """Whether the magnitude has a number for each input, (1, in, …)."""
        if self.magnitude is None or "dora_scale" not in self.magnitude.name:
            return False
        shape = self.magnitude.shape
        return len(shape) > 1 and shape[0] == 1

    @property
    def label(self) -> str:
        """Its tensors and their shapes, for messages."""
        return " and ".join(f"{_short(t.name)} {list(t.shape)}" for t in self.tensors)

    def fits(self, weight: tuple[int, ...]) -> bool:
        """Whether it can be added to a tensor of this shape."""
        if self.magnitude is not None:
            side = weight[int(self.is_by_input)] if len(weight) > 1 else 0
            if prod(self.magnitude.shape) != side:
                return False
        return fits(self.delta, weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """The updates of a file by component, and the names of the tensors that are ignored."""

    updates: Mapping[str, list[Update]]
    ignored: tuple[str, ...]


def read(path: Path) -> Lora:
    """Reads the updates of a LoRA. An embedding that was saved with it is ignored.

    Raises:
        SourceError: it is for another model, of another kind, or not whole; names the tensors.
    """
    tensors = table([path])
    what, names = key_names.other(tensors)
    if what:
        raise _named(path, what, names)
    ignored = [name for name in tensors if key_names.is_bundled(name)]
    groups = _grouped(path, {n: t for n, t in tensors.items() if n not in ignored})
    found: dict[str, list[Update]] = {}
    adapters = _adapters(path, tensors)
    for (component, flat), (layer, parts) in groups.items():
        adapter = adapters.get(component, Adapter())
        found.setdefault(component, []).extend(_updates(path, flat, layer, parts, adapter))
    return Lora(updates=found, ignored=tuple(ignored))


_THIRD = {"transformer": "Stable Diffusion 3: it changes a transformer"}
_FOREIGN: Mapping[str, Mapping[str, str]] = {
    "sd": _THIRD | {
        "text_encoder_2": "Stable Diffusion XL: it changes a second text encoder"},
    "sdxl": _THIRD, "sdxl-refiner": _THIRD,
    "sd3": {"unet": "Stable Diffusion 1, 2 or XL: it changes a U-Net"},
}
"""The components that each family does not have, and what a LoRA is for that changes them."""


def expect_family(path: Path, found: Lora, family: str) -> None:
    """Makes sure that a LoRA changes no component that a family does not have.

    Raises:
        SourceError: it does; names the tensors.
    """
    for component, what in _FOREIGN[family].items():
        if updates := found.updates.get(component):
            raise _named(path, f"is made for {what}", [u.tensors[0].name for u in updates])


def matched(
    where: str, updates: Collection[Update], weights: Mapping[str, tuple[int, ...]]
) -> dict[str, Update]:
    """Returns the updates by the name of the tensor that each changes.

    Args:
        weights: the shapes of the checkpoint's tensors.

    Raises:
        SourceError: updates fit no tensor or several, two fit the same, or their shapes are not
            its; all are named.
    """
    known = layers(weights)
    updates = list(_divided(where, updates, homes(weights)))
    found: dict[str, Update] = {}
    lost, unclear, twice = [], [], []
    unlike: list[tuple[Update, str]] = []
    for update in updates:
        names = [f"{base}.{update.target}" for base in known.get(update.layer, ())]
        names = [name for name in names if name in weights]
        if not names:
            lost.append(update.tensors[0].name)
        elif len(names) > 1:
            unclear.append(f"{update.tensors[0].name} for {' and '.join(names)}")
        elif names[0] in found:
            twice.append(f"{found[names[0]].tensors[0].name} and {update.tensors[0].name}")
        elif not update.fits(weights[names[0]]):
            unlike.append((update, names[0]))
        else:
            found[names[0]] = update
    if other := _other_generation(unlike, weights):
        raise SourceError(f"{where}: the LoRA {other}", hint=_HINT)
    for what, problems in (
        ("changes layers that the checkpoint does not have", lost),
        ("has names that fit several layers", unclear),
        ("changes a layer twice, under two names", twice),
    ):
        if problems:
            raise _named(where, what, problems)
    if unlike:
        raise _named(where, "is made for another checkpoint: its shapes do not fit", [
            f"{name} {list(weights[name])}: {update.label}" for update, name in unlike
        ], longest=3 * _LONGEST)
    return found


def _divided(
    where: str, updates: Collection[Update], known: Mapping[str, list[Home]]
) -> Iterator[Update]:
    """Yields updates of layers that are several in the checkpoint, or in another order, as those
    of its own.

    Raises:
        SourceError: such a layer has a norm of its own, by which DoRA divides.
    """
    for update in updates:
        for home in known.get(update.layer, [Home(layer=update.layer)]):
            delta = update.delta if home.of == 1 else Slices(update.delta, home.parts, home.of)
            if home.of > 1 and update.magnitude is not None:
                raise _named(where, "is a DoRA of layers that are several in the checkpoint, "
                             "which is not supported", [update.magnitude.name])
            yield replace(update, layer=flattened(home.layer), delta=delta)


def _other_generation(
    unlike: Collection[tuple[Update, str]], weights: Mapping[str, tuple[int, ...]]
) -> str:
    """Returns the generation that a LoRA is made for, by the width of its prompts; empty if
    that does not show."""
    for update, name in unlike:
        made, weight = update.delta.shape, weights[name]
        if not name.endswith(_PROMPTED) or made is None or len(made) < 2:
            continue
        if made[1] != weight[1] and made[1] in _GENERATIONS:
            return (f"seems to be made for Stable Diffusion {_GENERATIONS[made[1]]}: its prompts "
                    f"are {made[1]} wide, the checkpoint's are {weight[1]}:\n  "
                    f"{name} {list(weight)}: {update.label}")
    return ""


_Groups = dict[tuple[str, str], tuple[str, dict[str, Tensor]]]
"""By component and flat layer: the layer as the file names it, and its tensors by their roles."""


def _grouped(path: Path, tensors: Mapping[str, Tensor]) -> _Groups:
    groups: _Groups = {}
    strange, empty, twice = [], [], []
    for name, tensor in tensors.items():
        part = key_names.part(name)
        if part is None:
            strange.append(name)
            continue
        if 0 in tensor.shape or (tensor.shape == () and part.role != "alpha"):
            empty.append(f"{name} {list(tensor.shape)}")
        _, roles = groups.setdefault((part.component, part.flat), (part.layer, {}))
        if part.role in roles:
            twice.append(f"{roles[part.role].name} and {name}")
        roles[part.role] = tensor
    for what, names in (
        ("has tensors that are no part of a LoRA for Stable Diffusion 1, 2, XL or 3", strange),
        ("has tensors without rows or columns", empty),
        ("has two tensors for the same, perhaps of two adapters", twice),
    ):
        if names:
            raise _named(path, what, names)
    return groups


def _updates(
    path: Path, flat: str, layer: str, parts: Mapping[str, Tensor], adapter: Adapter
) -> Iterator[Update]:
    """Yields the updates of a layer: of its weight, of its bias, or of both."""
    biases = {"lora_bias", "diff_b"}
    kinds = {role.partition("_")[0] for role in parts.keys() - biases} & KINDS.keys()
    magnitudes = [parts[role] for role in _MAGNITUDES if role in parts]
    if len(kinds) > 1 or len(magnitudes) > 1:
        raise _named(path, "changes a layer in two ways", [t.name for t in parts.values()])
    if not kinds and not parts.keys() <= {"diff_b"}:
        raise _named(path, "lacks the factors that belong to", [t.name for t in parts.values()])
    scale = 1.0
    for kind in kinds:
        try:
            delta = KINDS[kind](parts)
        except KeyError:
            raise _named(path, "lacks the other half of",
                         [t.name for t in parts.values()]) from None
        if adapter.is_dora and not magnitudes:
            raise _named(path, "is a DoRA by its metadata, and lacks the magnitudes of",
                         [t.name for t in parts.values()])
        scale = _scale(parts, delta, adapter, layer) if kind != "diff" else 1.0
        yield Update(layer=flat, target="weight", delta=delta, scale=scale,
                     tensors=_sorted(parts, kind, magnitudes),
                     magnitude=magnitudes[0] if magnitudes else None)
    for role in sorted(biases & parts.keys()):
        yield Update(layer=flat, target="bias", delta=Full(parts[role]), tensors=(parts[role],),
                     scale=scale if role == "lora_bias" else 1.0)


def _sorted(
    parts: Mapping[str, Tensor], kind: str, magnitudes: Collection[Tensor]
) -> tuple[Tensor, ...]:
    factors = [parts[role] for role in sorted(parts)
               if role.startswith(kind) and role not in (*_MAGNITUDES, "lora_bias", "diff_b")]
    return (*factors, *magnitudes)


def _scale(parts: Mapping[str, Tensor], delta: Delta, adapter: Adapter, layer: str) -> float:
    """alpha / rank; a layer's own alpha counts before what is said of the adapter."""
    if "alpha" not in parts:
        return adapter.scale(layer, delta.rank)
    alpha = _scalar(parts["alpha"])
    return alpha / delta.rank if delta.rank else 1.0


def _scalar(tensor: Tensor) -> float:
    if prod(tensor.shape) != 1:
        raise SourceError(f"{tensor.file}: {_short(tensor.name)} has the shape "
                          f"{list(tensor.shape)}, expected one number")
    found = float(to_array(tensor, NUMBERS).reshape(-1)[0])
    if not math.isfinite(found):
        raise SourceError(f"{tensor.file}: {_short(tensor.name)} is {found}, expected a number",
                          hint="it is damaged, or was saved from a run that diverged")
    return found


def _adapters(path: Path, tensors: Collection[str]) -> dict[str, Adapter]:
    """Returns the settings of each component's adapter."""
    said = from_metadata(path, metadata(path))
    if not said and any(map(key_names.is_peft, tensors)) and not any(
        name.endswith(".alpha") for name in tensors
    ):
        adapter = read_peft_config(path)
        return dict.fromkeys(("unet", "transformer", *key_names.TEXT_ENCODERS), adapter)
    return said


def _named(
    where: object, what: str, names: Collection[str], longest: int = _LONGEST
) -> SourceError:
    shown = [_short(name, longest) for name in sorted(names)]
    more = f"\n  and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return SourceError(
        f"{where}: the LoRA {what}:\n  " + "\n  ".join(shown[:_SHOWN]) + more,
        hint=_HINT,
        names=shown[:_SHOWN],
    )


def _short(name: str, longest: int = _LONGEST) -> str:
    """Returns a name that a terminal can show."""
    name = name if name.isprintable() else ascii(name)
    return name if len(name) <= longest else f"{name[:longest]}…"
