"""The fit of a bundle's networks to each other, by their configs.

Each may be sound by itself and from a checkpoint of its own: a ControlNet of Stable Diffusion 1.5
beside a U-Net of 2.1 is found here, before anything is converted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sdbuild.base.errors import SourceError
from sdbuild.base.parsing import shown
from sdbuild.families import FAMILIES

_CONTROLNET = "controlnet/"
_ADDED = ("block_out_channels", "layers_per_block")
"""The fields that decide the shapes of a U-Net's residuals, to which a ControlNet adds."""

_WIDTHS = "prompts of 1.x are 768 wide, of 2.x 1024, of XL 2048: use parts of one kind"


class Part(NamedTuple):
    """The config of a network, the place it was read at, and the family that it is read as."""

    place: str
    config: Mapping[str, Any]
    family: str


def expect_fit(parts: Mapping[str, Part]) -> None:
    """Makes sure that networks take what others give.

    Args:
        parts: those of one bundle, by the names of their components, `controlnet/NAME` of several;
            of one that is not there nothing is checked.
    Raises:
        SourceError: two do not fit; says which, and where each was read.
    """
    for name, part in parts.items():
        _expect_prompts(name, part, parts)
        if name.startswith(_CONTROLNET) and "controlled_unet" in parts:
            _expect_residuals(part, parts["controlled_unet"])


def _expect_prompts(name: str, part: Part, parts: Mapping[str, Part]) -> None:
    """Makes sure that a network takes prompts as wide as the text encoders give them."""
    taken, field = part.config.get("cross_attention_dim"), "hidden_size"
    if taken is None:
        taken, field = part.config.get("joint_attention_dim"), "d_model"
    encoders = list(_encoders(part.family, field, parts))
    given = [encoder.config.get(field) for encoder in encoders]
    widths = [width for width in given if isinstance(width, int)]
    if not isinstance(taken, int) or not encoders or len(widths) < len(given):
        return
    if taken != sum(widths):
        raise SourceError(
            f"{part.place}: {name} takes prompts {taken} wide, expected {sum(widths)}, as wide as "
            f"the text encoders of {encoders[0].place} give them", hint=_WIDTHS)


def _encoders(family: str, field: str, parts: Mapping[str, Part]) -> Iterator[Part]:
    """Yields the text encoders whose embeddings make up a prompt, none if one is not known."""
    names = ["text_encoder_3"] if field == "d_model" else \
        [c.name for c in FAMILIES[family].components if c.reads_tokens]
    if all(name in parts for name in names):
        yield from (parts[name] for name in names)


def _expect_residuals(net: Part, unet: Part) -> None:
    """Makes sure that a ControlNet adds to residuals that a U-Net has."""
    for field in _ADDED:
        found, expected = net.config.get(field), unet.config.get(field)
        if found != expected:
            raise SourceError(
                f"{net.place}: a ControlNet whose {field} is {shown(found)}, expected "
                f"{shown(expected)}, as of the U-Net of {unet.place}",
                hint="use a ControlNet that was made for this kind of model")
