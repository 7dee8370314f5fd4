"""Schedules: how the noise is taken from latents, step by step; a file for each maker of them.

Which a host has is said by `bundle/hosts.py`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from sdbuild.base.errors import BundleError, SDBuildError, ToolMissing
from sdbuild.bundle.hosts import Host
from sdbuild.bundle.manifest import MANIFEST, Bundle
from sdbuild.bundle.request import Request
from sdbuild.bundle.schedulers import SIGMAS, parts

FLOW = "flow_euler"
"""The scheduler that all hosts have for networks that predict a flow."""

_PATCH_PX = 16
"""Pixels on the side of a token of Stable Diffusion 3, of every published one."""


class Schedule(Protocol):
    """The steps of one picture; `timesteps` are those that are left to do, from the first, and
    `is_cut` says whether some are left out.

    Shapes:
        all tensors: (1, C, h, w).
    """

    timesteps: Sequence[float]
    is_cut: bool

    def initial(self, noise: torch.Tensor) -> torch.Tensor:
        """Returns the latents to begin with, where there is no image."""
        ...

    def noised(
        self, latents: torch.Tensor, noise: torch.Tensor, index: int = 0
    ) -> torch.Tensor:
        """Returns the latents of an image with the noise of a step."""
        ...

    def scaled(self, sample: torch.Tensor, index: int) -> torch.Tensor:
        """Returns a sample as the network takes it at a step."""
        ...

    def step(self, prediction: torch.Tensor, index: int, sample: torch.Tensor) -> torch.Tensor:
        """Returns the sample after a step."""
        ...

    def clean(self, sample: torch.Tensor) -> torch.Tensor:
        """Returns the last step's prediction of the clean sample, or the sample if it gave none."""
        ...

    def result(self, sample: torch.Tensor) -> torch.Tensor:
        """Returns the latents to decode, after the last step."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The schedule that is asked for.

    `config` is the checkpoint's, in diffusers' words; `sigmas` and `spacing` are empty where it or
    the scheduler decides. With a `strength`, the first steps are left out. `patches` is the number
    of tokens that a transformer makes of the picture: some schedules depend on it.
    """

    scheduler: str
    config: Mapping[str, Any]
    steps: int
    spacing: str = ""
    sigmas: str = ""
    strength: float | None = None
    patches: int = 0


def asked(request: Request, bundle: Bundle, host: Host) -> Asked:
    """Returns the schedule of a request, unless the host decides otherwise.

    Raises:
        BundleError: the host has no such scheduler or spacing.
    """
    scheduler, sigmas = parts(request.scheduler)
    if request.karras is not None:
        sigmas = "karras" if request.karras else ""
    is_flow = bundle.prediction_type.startswith("flow")
    schedulers = (FLOW,) if is_flow and host.schedulers else host.schedulers
    for field, value, known in (
        ("scheduler", scheduler.name, schedulers),
        ("spacing", request.spacing or "linspace", host.spacings),
    ):
        if known and value not in known:
            raise BundleError(f"{field}={value}: {host.title} has only {', '.join(known)}",
                              hint=f"use {field}={known[0]}, or another host")
    if scheduler.is_flow != is_flow:
        raise BundleError(
            f"scheduler={scheduler.name} is for networks that predict "
            f"{'a flow' if scheduler.is_flow else 'noise or velocity'}, this bundle's predicts "
            f"{bundle.prediction_type}",
            hint=f"use another, such as {FLOW if is_flow else 'dpm'}")
    if sigmas and not scheduler.has_sigmas:
        raise BundleError(f"scheduler={scheduler.name} has no sigmas that could be {sigmas}",
                          hint="use another scheduler, such as dpm, or karras=no")
    if sigmas not in ("", *SIGMAS):
        raise BundleError(f"scheduler={request.scheduler}: no such sigmas as {sigmas}")
    return Asked(
        scheduler=scheduler.name, sigmas=sigmas, steps=request.steps,
        config={**bundle.scheduler, "prediction_type": bundle.prediction_type},
        spacing=request.spacing or host.spacing,
        strength=host.strength(request),
        patches=(bundle.width_px // _PATCH_PX) * (bundle.height_px // _PATCH_PX),
    )


def schedule(
    request: Request, bundle: Bundle, host: Host, generator: torch.Generator
) -> Schedule:
    """Returns the schedule of one picture.

    Args:
        generator: gives the noise that some schedulers add in each step.
    Raises:
        BundleError: the host has none such, or it cannot take the bundle's config.
    """
    module: Any = importlib.import_module(f"sdbuild.runtime.schedulers.{host.schedules}")
    wanted = asked(request, bundle, host)
    try:
        made: Schedule = module.schedule(wanted, generator)
    except SDBuildError:
        raise
    except ImportError as error:
        raise ToolMissing(f"scheduler={request.scheduler}: {' '.join(str(error).split())}",
                          hint="pip install scipy, or use another scheduler") from error
    except Exception as error:  # diffusers refuses configs in many ways
        raise BundleError(
            f"{bundle.folder / MANIFEST}: scheduler: {request.scheduler} cannot take it for "
            f"{request.steps} steps: {error}", hint="use another scheduler") from error
    return made
