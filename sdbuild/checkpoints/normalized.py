"""A component's checkpoint in its one form: what a download writes and every later step reads.

It is a folder: `architecture.json`, what defines the network; `weights.safetensors`; and of an
autoencoder `latents.json`. What they hold, `normalize.py` makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbuild.base.digest import canonical
from sdbuild.base.errors import SourceError
from sdbuild.base.parsing import Fields, json_file

ARCHITECTURE = "architecture.json"
WEIGHTS = "weights.safetensors"
LATENTS = "latents.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The network of a component: the class and config of its checkpoint.

    `prediction` is there if a U-Net predicts anything but noise and its output is to be turned into
    noise, `padding` if a text encoder was trained with other pad tokens than hosts send. Without
    `force_upcast` an autoencoder says that it need not be computed in fp32. `distilled_guidance` is
    the guidance that a U-Net which was trained to take it as an input is to have, if a recipe says.
    `size_px` are width and height of its pictures, of a network whose parameters depend on them.
    """

    class_name: str
    config: Mapping[str, Any]
    prediction: Mapping[str, Any] | None = None
    padding: Mapping[str, int] | None = None
    force_upcast: bool = True
    distilled_guidance: float | None = None
    size_px: tuple[int, int] = (0, 0)


def encode(values: Mapping[str, Any]) -> bytes:
    """Returns the bytes of an architecture, or of what is known of latents, as files hold them."""
    return canonical(values)


def read_architecture(path: Path, params: Mapping[str, Any]) -> Architecture:
    """Returns the architecture in the file `ARCHITECTURE`, for a step's `params`.

    Raises:
        SourceError: the file is not what a download writes.
    """
    found = Fields(json_file(path, SourceError), path.name, SourceError)
    optional = {name: found.fields(name) if found.values.get(name) is not None else None
                for name in ("prediction", "padding")}
    padding, prediction = optional["padding"], optional["prediction"]
    is_converted = params.get("prediction") == "epsilon"
    config = found.fields("config").values
    if "clip_skip" in params and "num_hidden_layers" in config:
        config = _without_layers(config, params["clip_skip"] - 1)
    return Architecture(
        class_name=found.text("class"), config=config,
        padding={name: padding.integer(name) for name in padding.values} if padding else None,
        prediction=prediction.values if prediction and is_converted else None,
        force_upcast=found.flag("force_upcast", default=True),
        distilled_guidance=params.get("distilled_guidance"),
        size_px=(params.get("width_px", 0), params.get("height_px", 0)),
    )


def _without_layers(config: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Returns the config of an encoder without so many of its last layers."""
    layers = config["num_hidden_layers"]
    if not isinstance(layers, int) or layers <= count:
        raise SourceError(f"clip_skip={count + 1}: the text encoder has {layers} layers",
                          hint=f"use clip_skip from 1 to {layers}")
    return {**config, "num_hidden_layers": layers - count}


def read_latents(path: Path) -> dict[str, Any]:
    """Returns how latents are scaled, from the file `LATENTS`; empty if there is none."""
    return json_file(path, SourceError) if path.exists() else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Latents:
    """An autoencoder's factors: the denoiser gets (latents - `shift_factor`) * `scaling_factor`.
    The defaults are those of Stable Diffusion 1 and 2."""

    scaling_factor: float = 0.18215
    shift_factor: float = 0.0


def latents(path: Path) -> Latents:
    """Returns how latents are scaled, from the file `LATENTS`.

    Raises:
        SourceError: the file is not what a download writes.
    """
    found = Fields(json_file(path, SourceError), LATENTS, SourceError)
    return Latents(scaling_factor=found.number("scaling_factor"),
                   shift_factor=found.number("shift_factor", default=0.0))
