"""The schedulers of Apple's Swift package: PNDM, DPM-Solver++ of the second order, and for flows
Euler's, which is diffusers' own.

They differ from diffusers' in the timesteps, whose halves are rounded away from zero, in the order
of DPM-Solver++ below 15 steps, and in what is decoded: the last step's prediction of the clean
sample. The schedule of noise is built in: Stable Diffusion's, for networks that predict noise.

Source:
    What apple/ml-stable-diffusion at e12202c computes, `tests/fixtures/swift/schedulers.json`; the
    methods are those of Liu et al. 2022 (arXiv 2202.09778) and Lu et al. 2022 (arXiv 2211.01095).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from sdbuild.base.errors import BundleError
from sdbuild.runtime.schedulers import FLOW, Asked, Schedule, diffusers

_TRAINED = 1000
_BETAS = (0.00085, 0.012)
_FEW_STEPS = 15
"""Below so many steps, the last two of DPM-Solver++ are of the first order."""
_RHO = np.float32(7)
_ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12),
                    (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def _rounded(value: float) -> int:
    """Returns the nearest whole number; halves are rounded away from zero. For positive numbers."""
    return math.floor(float(value) + 0.5)


def _linspace(start: float, end: float, count: int) -> np.ndarray:
    """Floats at even distances, with the roundings of one multiplication and one addition each."""
    scale = (np.float32(end) - np.float32(start)) / np.float32(count - 1)
    return np.arange(count, dtype=np.float32) * scale + np.float32(start)


def _alphas_cumprod() -> np.ndarray:
    start, end = (np.sqrt(np.float32(beta)) for beta in _BETAS)
    return np.cumprod(1 - _linspace(start, end, _TRAINED) ** 2, dtype=np.float32)


class Steps:
    """The common part of both: the built-in noise, and image to image.

    Args:
        steps: as they are asked for, one less than PNDM has timesteps.
    """

    def __init__(self, every: Sequence[int], steps: int, strength: float | None) -> None:
        self.every = every
        self._alphas_cumprod = _alphas_cumprod()
        kept = steps if strength is None else int(np.float32(steps) * np.float32(strength))
        start = max(steps - kept, 0)
        if start >= len(every):
            raise BundleError(
                f"strength={strength:g} leaves no step of {steps}: Apple's Swift package crashes",
                hint=f"use a strength of at least {1 / steps:g}")
        self.timesteps: Sequence[float] = every[start:]
        self.is_cut = start > 0
        self.denoised: torch.Tensor | None = None

    def initial(self, noise: torch.Tensor) -> torch.Tensor:
        """Returns the noise itself."""
        return noise

    def noised(
        self, latents: torch.Tensor, noise: torch.Tensor, index: int = 0
    ) -> torch.Tensor:
        """Returns the latents of an image with the noise of a step."""
        alpha = self._alphas_cumprod[int(self.timesteps[index])]
        return weighted((np.sqrt(alpha), np.sqrt(1 - alpha)), (latents, noise))

    def scaled(self, sample: torch.Tensor, index: int) -> torch.Tensor:
        """Returns the sample itself."""
        return sample

    def clean(self, sample: torch.Tensor) -> torch.Tensor:
        """Returns the last step's prediction of the clean sample."""
        return sample if self.denoised is None else self.denoised

    result = clean  # what the package decodes


def weighted(weights: Sequence[float], values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns the weighted sum of samples, in fp32.

    Shapes:
        values, returns: (1, C, h, w).
    """
    found = torch.zeros_like(values[0])
    for weight, value in zip(weights, values, strict=True):
        found = found + float(np.float32(weight)) * value
    return found


class Pndm(Steps):
    """Pseudo linear multistep: the second timestep is done twice, its second time for the first."""

    def __init__(self, asked: Asked) -> None:
        steps = asked.steps
        if not 2 <= steps < _TRAINED:
            raise BundleError(f"steps={steps} with pndm: Apple's Swift package crashes",
                              hint="use steps from 2 to 999, or scheduler=dpm")
        self._stride = _TRAINED // steps
        forward = [number * self._stride + 1 for number in range(steps)]
        super().__init__([*forward[:-1], forward[-2], forward[-1]][::-1], steps, asked.strength)
        self._predictions: list[torch.Tensor] = []
        self._count = 0
        self._first: torch.Tensor | None = None

    def step(self, prediction: torch.Tensor, index: int, sample: torch.Tensor) -> torch.Tensor:
        """Returns the sample after a step."""
        timestep = int(self.timesteps[index])
        before = timestep - self._stride
        if self._count == 1:
            before, timestep = timestep, timestep + self._stride
            prediction = weighted((0.5, 0.5), (prediction, self._predictions[-1]))
            assert self._first is not None
            sample = self._first
        else:
            self._predictions = [*self._predictions[-3:], prediction]
            weights = _ADAMS_BASHFORTH[len(self._predictions) - 1]
            if len(weights) > 1:
                prediction = weighted(weights, self._predictions[::-1])
        if self._count == 0:
            self._first = sample
        self._count += 1
        alpha = self._alphas_cumprod[timestep]
        self.denoised = (sample - prediction * float(np.sqrt(1 - alpha))) / float(np.sqrt(alpha))
        return self._before(sample, prediction, timestep, before)

    def _before(
        self, sample: torch.Tensor, noise: torch.Tensor, timestep: int, before: int
    ) -> torch.Tensor:
        """Returns the sample of an earlier timestep, by formula 9 of the paper."""
        now, then = (self._alphas_cumprod[max(t, 0)] for t in (timestep, before))
        below = now * np.sqrt(1 - then) + np.sqrt(now * (1 - now) * then)
        return weighted((np.sqrt(then / now), -(then - now) / below), (sample, noise))


class Dpm(Steps):
    """DPM-Solver++ of the second order, multistep."""

    def __init__(self, asked: Asked) -> None:
        self._is_karras = asked.sigmas == "karras"
        if asked.sigmas not in ("", "karras"):
            raise BundleError(f"sigmas of {asked.sigmas}: Apple's Swift package has only karras",
                              hint="use karras=yes, or another host")
        if self._is_karras and asked.steps < 2:
            raise BundleError("karras with one step: Apple's Swift package crashes",
                              hint="use steps=2, or karras=no")
        alphas_cumprod = _alphas_cumprod()
        if self._is_karras:
            every, sigmas = _karras(alphas_cumprod, asked.steps)
            self._alphas = 1 / np.sqrt(1 + sigmas**2)
            self._sigmas = sigmas * self._alphas
        else:
            every = (_leading if asked.spacing == "leading" else _even)(asked.steps)
            self._alphas, self._sigmas = np.sqrt(alphas_cumprod), np.sqrt(1 - alphas_cumprod)
        super().__init__(every, asked.steps, asked.strength)
        self._lambdas = np.log(self._alphas) - np.log(self._sigmas)
        self._done: list[torch.Tensor] = []

    def _at(self, timestep: int) -> tuple[float, float, float]:
        """Alpha, sigma and lambda of a timestep."""
        index = timestep
        if self._is_karras:
            index = self.every.index(timestep) if timestep in self.every else 0
        return (float(self._alphas[index]), float(self._sigmas[index]),
                float(self._lambdas[index]))

    def step(self, prediction: torch.Tensor, index: int, sample: torch.Tensor) -> torch.Tensor:
        """Returns the sample after a step."""
        timestep = int(self.timesteps[index])
        place, last = self.every.index(timestep), len(self.every) - 1
        alpha, sigma, now = self._at(timestep)
        self.denoised = (sample - prediction * sigma) / alpha
        self._done = [*self._done[-1:], self.denoised]
        next_alpha, next_sigma, then = self._at(self.every[place + 1] if place < last else 0)
        step = np.float64(then - now)
        factor = -next_alpha * (np.exp(-step) - 1)
        is_first_order = len(self._done) < 2 or (place >= last - 1 and last + 1 < _FEW_STEPS)
        if is_first_order:
            return weighted((next_sigma / sigma, factor), (sample, self.denoised))
        with np.errstate(divide="ignore", invalid="ignore"):
            # Steps of no length are possible: many Karras steps share a timestep at the end.
            inverse = 1 / ((now - self._at(self.every[place - 1])[2]) / step)
        slope = weighted((inverse, -inverse), self._done[::-1])
        return weighted((next_sigma / sigma, factor, 0.5 * factor), (sample, self.denoised, slope))


def _even(steps: int) -> list[int]:
    """Timesteps from the last trained one down, at even distances."""
    return [_rounded(t) for t in _linspace(0, _TRAINED - 1, steps + 1)[:0:-1]]


def _leading(steps: int) -> list[int]:
    """Timesteps at whole distances, the last trained one left out."""
    stride = (_TRAINED - 1) // (steps + 1)
    return [1 + number * stride for number in range(steps, 0, -1)]


def _karras(alphas_cumprod: np.ndarray, steps: int) -> tuple[list[int], np.ndarray]:
    """Returns the timesteps of sigmas that are spaced as Karras et al. have it, and the sigmas, the
    last one twice."""
    trained = np.sqrt((1 - alphas_cumprod) * (1 / alphas_cumprod))
    low, high = trained[0] ** (1 / _RHO), trained[-1] ** (1 / _RHO)
    sigmas = ((high + _linspace(0, 1, steps) * (low - high)) ** _RHO).astype(np.float32)
    logs = np.log(trained)
    return [_timestep(np.log(s), logs) for s in sigmas], np.append(sigmas, sigmas[-1])


def _timestep(log_sigma: np.float32, logs: np.ndarray) -> int:
    """Returns the timestep of a sigma, between those of the trained ones on both sides of it."""
    low = min(max(int((log_sigma >= logs).sum()) - 1, 0), len(logs) - 2)
    part = (logs[low] - log_sigma) / (logs[low] - logs[low + 1])
    part = np.clip(part, np.float32(0), np.float32(1))
    return _rounded((1 - part) * np.float32(low) + part * np.float32(low + 1))


_FLOW_CONFIG = {"num_train_timesteps": _TRAINED, "shift": 3.0}


def _flow(asked: Asked, generator: torch.Generator) -> Schedule:
    """Returns the steps of a flow, with the shift that the package has where no caller says
    otherwise.

    Raises:
        BundleError: there is an image, or a single step: the package crashes.
    """
    if asked.strength is not None:
        raise BundleError("image: Apple's Swift package crashes at one with Stable Diffusion 3",
                          hint="leave it out, or use another host")
    if asked.steps < 2:
        raise BundleError("steps=1 with Stable Diffusion 3: Apple's Swift package crashes",
                          hint="use steps=2, or another host")
    return diffusers.schedule(replace(asked, config=_FLOW_CONFIG, spacing="", sigmas=""), generator)


def schedule(asked: Asked, generator: torch.Generator) -> Schedule:
    """Returns the package's scheduler of this name, which takes nothing of a checkpoint's
    config."""
    if asked.scheduler == FLOW:
        return _flow(asked, generator)
    return Pndm(asked) if asked.scheduler == "pndm" else Dpm(asked)
