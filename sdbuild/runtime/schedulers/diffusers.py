"""diffusers' schedulers, as its own pipelines call them."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from sdbuild.base.errors import BundleError
from sdbuild.bundle.schedulers import SCHEDULERS, SIGMAS
from sdbuild.runtime.schedulers import FLOW, Asked
from sdbuild.runtime.schedulers.lightly import made

_CLEAN = ("pred_original_sample", "denoised")
_SOLVERS = ("dpmsolver++", "sde-dpmsolver++", "data_prediction")
"""The methods whose `model_outputs` are predictions of the clean sample, as those with
`predict_x0`."""


class Diffusers:
    """A scheduler of diffusers; the noise of its steps comes from `generator`."""

    def __init__(self, scheduler: Any, strength: float | None, steps: int,
                 generator: torch.Generator) -> None:
        self._scheduler = scheduler
        self.timesteps = scheduler.timesteps
        self._clean: torch.Tensor | None = None
        self.is_cut = strength is not None and strength < 1
        if strength is not None:
            self.timesteps = _left(scheduler, strength, steps)
        self._is_flow = hasattr(scheduler, "scale_noise")
        takes = inspect.signature(scheduler.step).parameters
        more = {"generator": generator, "eta": 0.0}  # as diffusers' pipelines give them
        self._more = {name: value for name, value in more.items() if name in takes}

    def initial(self, noise: torch.Tensor) -> torch.Tensor:
        """Returns the latents to begin with, where there is no image."""
        return noise * getattr(self._scheduler, "init_noise_sigma", 1)

    def noised(
        self, latents: torch.Tensor, noise: torch.Tensor, index: int = 0
    ) -> torch.Tensor:
        """Returns the latents of an image with the noise of a step."""
        timestep = self.timesteps[index:index + 1]
        found: torch.Tensor = self._scheduler.scale_noise(latents, timestep, noise) \
            if self._is_flow else self._scheduler.add_noise(latents, noise, timestep)
        return found

    def scaled(self, sample: torch.Tensor, index: int) -> torch.Tensor:
        """Returns a sample as the network takes it at a step."""
        if self._is_flow:
            return sample
        found: torch.Tensor = self._scheduler.scale_model_input(sample, self.timesteps[index])
        return found

    def step(self, prediction: torch.Tensor, index: int, sample: torch.Tensor) -> torch.Tensor:
        """Returns the sample after a step."""
        found = self._scheduler.step(prediction, self.timesteps[index], sample, **self._more)
        self._clean = next((value for name in _CLEAN if (value := getattr(found, name, None))
                            is not None), None)
        stepped: torch.Tensor = found.prev_sample
        return stepped

    def clean(self, sample: torch.Tensor) -> torch.Tensor:
        """Returns the last step's prediction of the clean sample, or the sample if it gave none:
        solvers keep it, the others return it."""
        config = self._scheduler.config
        if config.get("algorithm_type") in _SOLVERS or config.get("predict_x0"):
            kept: torch.Tensor | None = self._scheduler.model_outputs[-1]
            return sample if kept is None else kept
        return sample if self._clean is None else self._clean

    def result(self, sample: torch.Tensor) -> torch.Tensor:
        """Returns the last sample."""
        return sample


def schedule(asked: Asked, generator: torch.Generator) -> Diffusers:
    """diffusers' scheduler with a checkpoint's config and what is asked for beside it."""
    entry = SCHEDULERS[asked.scheduler]
    config = {**asked.config, **entry.config}
    if asked.spacing:
        config["timestep_spacing"] = asked.spacing
    if asked.sigmas:
        config |= {field: name == asked.sigmas for name, field in SIGMAS.items()}
    scheduler = made(entry.kind, config)
    scheduler.set_timesteps(asked.steps, **_shift(scheduler, asked))
    return Diffusers(scheduler, asked.strength, asked.steps, generator)


def _shift(scheduler: Any, asked: Asked) -> dict[str, float]:
    """Returns the shift of a schedule that has one for each size of picture; nothing for others.

    It grows with the number of tokens, on a line through two points of the checkpoint's config.

    Raises:
        BundleError: the scheduler cannot shift by size.
    Source:
        diffusers 0.42, `calculate_shift` and `__call__` of `StableDiffusion3Pipeline` (Apache 2.0).
    """
    config = asked.config
    if not config.get("use_dynamic_shifting"):
        return {}
    if "mu" not in inspect.signature(scheduler.set_timesteps).parameters:
        raise BundleError(f"scheduler={asked.scheduler}: the checkpoint's schedule depends on the "
                          "size of the picture (use_dynamic_shifting), which it cannot do",
                          hint=f"use scheduler={FLOW}")
    fewest, most = (config.get(f"{end}_image_seq_len", default)
                    for end, default in (("base", 256), ("max", 4096)))
    least, largest = (config.get(f"{end}_shift", default)
                      for end, default in (("base", 0.5), ("max", 1.16)))
    slope = (largest - least) / (most - fewest)
    return {"mu": least + slope * (asked.patches - fewest)}


def _left(scheduler: Any, strength: float, steps: int) -> Any:
    """Returns the timesteps that are left for an image, as diffusers' image to image pipelines have
    them.

    Raises:
        BundleError: none is left.
    Source:
        diffusers 0.42, `get_timesteps` of `StableDiffusionImg2ImgPipeline` and, for flows, of
        `StableDiffusion3Img2ImgPipeline`, which rounds the other way (Apache 2.0).
    """
    kept = min(int(steps * strength), steps)
    if hasattr(scheduler, "scale_noise"):
        kept = steps - int(max(steps - min(steps * strength, steps), 0))
    if kept < 1:
        raise BundleError(f"strength={strength:g} leaves no step of {steps}",
                          hint=f"use a strength of at least {1 / steps:g}, or more steps")
    start = (steps - kept) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(start)
    return scheduler.timesteps[start:]
