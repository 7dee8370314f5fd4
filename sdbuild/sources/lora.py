"""LoRAs: small files that say how a checkpoint's weights change, by two thin matrices for each.

Trainers name the same layer in many ways; what is one is told from a name's end, and which layer
it is from the rest, with every `.` as `_`:

    lora_unet_mid_block_attentions_0_proj_in.lora_down.weight      kohya, and .lora_up, .alpha
    unet.mid_block.attentions.0.proj_in.lora_A.weight              peft and diffusers, and .lora_B
    unet.mid_block.attentions.0.proj_in.lora.down.weight           older, and .lora.up
    unet.mid_block. … .attn1.processor.to_q_lora.down.weight       the oldest

Source:
    kohya-ss/sd-scripts `networks/lora.py` and KohakuBlueleaf/LyCORIS `locon` (`lora_mid`);
    diffusers `loaders/lora_conversion_utils.py`, `utils/state_dict_utils.py`; peft `tuners/lora`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.errors import SourceError

if TYPE_CHECKING:
    from sdbuild.sources.tensors import Tensor

_SHOWN = 8
_PART = re.compile(
    r"(?P<layer>.+?)[._]?"
    r"(?P<kind>lora_down|lora_up|lora_mid|lora_A|lora_B|lora\.down|lora\.up|"
    r"lora_linear_layer\.down|lora_linear_layer\.up)"
    r"(?:\.default)?\.weight"
)
_ROLES = {"A": "down", "B": "up", "down": "down", "up": "up", "mid": "mid"}
_COMPONENTS = (
    (re.compile(r"lora_unet_|unet\.|(?=(?:down_blocks|mid_block|up_blocks)\.)"), "unet"),
    (re.compile(r"lora_te_|text_encoder\."), "text_encoder"),
)
_OTHER_MODELS = (
    (re.compile(r"lora_te[12]_|text_encoder_2\."), "is made for Stable Diffusion XL"),
    (re.compile(r"transformer\.|lora_transformer_|diffusion_model\."),
     "is made for a transformer, such as Stable Diffusion 3 or FLUX"),
    (re.compile(r"base_model\.model\."), "is an adapter as peft writes it, whose strength stands "
     "in another file"),
)
_OTHER_KINDS = (
    (re.compile(r".*\.hada_"), "LoHa"), (re.compile(r".*\.lokr_"), "LoKr"),
    (re.compile(r".*(\.dora_scale|lora_magnitude_vector)"), "DoRA"),
    (re.compile(r".*\.oft_|.*\.(a1|b1)\.weight"), "OFT or GLoRA"),
    (re.compile(r".*\.diff(_b)?$"), "full differences"),
    (re.compile(r".*\.on_input$"), "IA3"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What is added to a layer's weight W: scale · up @ down, where scale is alpha / rank.

    Shapes:
        down: (rank, in) or (rank, in, kh, kw); up: (out, rank), or with 1, 1 behind;
        mid: (rank, rank, kh, kw), between a 1×1 down and up.
    """

    layer: str
    down: Tensor
    up: Tensor
    mid: Tensor | None
    alpha: float | None

    @property
    def rank(self) -> int:
        """The width of the two matrices."""
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        """alpha / rank, 1 where no alpha is given."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


def read(path: Path) -> dict[str, list[Update]]:
    """The updates of a LoRA, by the component that they are for.

    Raises:
        SourceError: it is for another model, of another kind, or not whole; names the tensors.
    """
    from sdbuild.sources.tensors import metadata, table

    tensors = table([path])
    _refuse_others(path, tensors)
    layers: dict[tuple[str, str], dict[str, Tensor]] = {}
    strange = []
    for name, tensor in tensors.items():
        component, rest = _component(name)
        role, layer = _role(rest)
        if not component or not role:
            strange.append(name)
        else:
            layers.setdefault((component, layer), {})[role] = tensor
    if strange:
        raise _named(path, "holds what is no part of a LoRA for Stable Diffusion 1 or 2", strange)
    said = _adapters(path, metadata(path))
    found: dict[str, list[Update]] = {}
    for (component, layer), parts in layers.items():
        if not {"down", "up"} <= parts.keys():
            raise _named(path, "lacks the other half of", [t.name for t in parts.values()])
        alpha = _scalar(parts["alpha"]) if "alpha" in parts else _alpha(said, component, layer)
        found.setdefault(component, []).append(Update(
            layer=layer, down=parts["down"], up=parts["up"], mid=parts.get("mid"), alpha=alpha,
        ))
    return found


def matched(
    where: str, updates: Collection[Update], weights: Mapping[str, tuple[int, ...]]
) -> dict[str, list[Update]]:
    """The updates by the name of the weight that each changes.

    Args:
        weights: the shapes of the checkpoint's tensors.

    Raises:
        SourceError: updates fit no weight, or their shapes are not its; all are named.
    """
    layers = {_flat(n.removesuffix(".weight")): n for n in weights if n.endswith(".weight")}
    found: dict[str, list[Update]] = {}
    lost, unlike = [], []
    for update in updates:
        flat = _flat(update.layer)
        name = layers.get(flat) or layers.get(f"{flat}_0")  # to_out was no list once
        if name is None:
            lost.append(update.down.name)
        elif not _fits(update, weights[name]):
            unlike.append(f"{update.down.name} {list(update.down.shape)} and {update.up.name} "
                          f"{list(update.up.shape)} for {name} {list(weights[name])}")
        else:
            found.setdefault(name, []).append(update)
    if lost:
        raise _named(where, "changes layers that the checkpoint does not have", lost)
    if unlike:
        raise _named(where, "is made for another checkpoint: its shapes do not fit", unlike)
    return found


def _fits(update: Update, weight: tuple[int, ...]) -> bool:
    out, inner = weight[0], weight[1:]
    if update.mid is not None:
        down = (update.rank, inner[0], *update.mid.shape[2:])
        between = update.mid.shape[:2] == (update.up.shape[1], update.rank)
    else:
        down, between = update.down.shape, update.up.shape[1] == update.rank
    return between and update.up.shape[0] == out and _trimmed(down[1:]) == _trimmed(inner)


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a linear layer or a 1×1 convolution, which are the same."""
    return shape[:1] if all(side == 1 for side in shape[1:]) else shape


def _component(name: str) -> tuple[str, str]:
    for pattern, component in _COMPONENTS:
        if found := pattern.match(name):
            return component, name[found.end():]
    return "", name


def _role(name: str) -> tuple[str, str]:
    """What the tensor is of its layer, and the layer."""
    if name.endswith(".alpha"):
        return "alpha", name.removesuffix(".alpha").removesuffix(".lora")
    found = _PART.fullmatch(name)
    if not found:
        return "", name
    return _ROLES[re.split(r"[._]", found["kind"])[-1]], found["layer"]


def _flat(layer: str) -> str:
    flat = layer.replace(".processor.", ".").replace(".", "_")
    return flat.removeprefix("text_model_")


def _refuse_others(path: Path, names: Collection[str]) -> None:
    for table, verb in ((_OTHER_MODELS, ""), (_OTHER_KINDS, "is of the kind ")):
        for pattern, what in table:
            if found := [name for name in names if pattern.match(name)]:
                raise _named(path, f"{verb}{what}", found)


def _adapters(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """What diffusers says of the adapters: {"unet.lora_alpha": 8, …}."""
    try:
        said = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError as error:
        raise SourceError(f"{path}: lora_adapter_metadata is no JSON: {error}") from error
    for name in said:
        if name.endswith((".use_dora", ".use_rslora")) and said[name]:
            raise SourceError(f"{path}: it has {name}, which is not known here")
    return dict(said)


def _alpha(said: Mapping[str, Any], component: str, layer: str) -> float | None:
    """The layer's alpha by the adapter's metadata: its pattern's, or that of all."""
    for pattern, alpha in (said.get(f"{component}.alpha_pattern") or {}).items():
        if re.fullmatch(rf"(?:.*\.)?(?:{pattern})", layer):
            return float(alpha)
    alpha = said.get(f"{component}.lora_alpha")
    return None if alpha is None else float(alpha)


def _scalar(tensor: Tensor) -> float:
    from sdbuild.sources.numbers import NUMBERS, whole

    array = whole(tensor, NUMBERS)
    if array.size != 1:
        raise SourceError(f"{tensor.file}: {tensor.name} has {array.size} numbers, expected one")
    return float(array.reshape(-1)[0])


def _named(where: object, what: str, names: Collection[str]) -> SourceError:
    names = sorted(names)
    more = f"\n  and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return SourceError(
        f"{where}: the LoRA {what}:\n  " + "\n  ".join(names[:_SHOWN]) + more,
        hint="a LoRA changes the checkpoints of the model that it was made for: here one of "
             "Stable Diffusion 1 or 2, for its U-Net and text encoder",
        names=names,
    )
