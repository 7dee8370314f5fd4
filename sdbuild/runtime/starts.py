"""Where each picture starts: its noise, its schedule, and the latents of an image.

Hosts draw their random numbers in different orders, so whoever asks for the same seed gets the
same picture only if the numbers are drawn as that host draws them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sdbuild.bundle.hosts import HOSTS, Host
from sdbuild.bundle.manifest import Bundle
from sdbuild.bundle.request import Request
from sdbuild.runtime.rng import Noise
from sdbuild.runtime.schedulers import Schedule, schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """The latents of an image, as the encoder gives them: a mean and a deviation of each.

    Shapes:
        both (1, C, h, w).
    """

    mean: np.ndarray
    std: np.ndarray

    def sampled(self, numbers: np.ndarray, scale_factor: float) -> torch.Tensor:
        """Latents, of normally distributed numbers."""
        found = self.mean + self.std * numbers.reshape(self.mean.shape)
        return torch.from_numpy(found.astype(np.float32) * np.float32(scale_factor))


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a picture starts with; its seed is that of its noise."""

    seed: int
    latents: torch.Tensor
    schedule: Schedule


def noise_of(host: Host, rng: str | None, seed: int) -> Noise:
    """A host's stream of random numbers; a seed that it does not have stands for its last bits."""
    name = host.rngs[rng or next(iter(host.rngs))]
    module: Any = importlib.import_module(f"sdbuild.runtime.rng.{name}")
    stream: Noise = module.Stream(seed % host.seeds)
    return stream


def starts(
    request: Request, bundle: Bundle, shape: tuple[int, ...], image: Moments | None
) -> Iterator[Start]:
    """What each picture of a request starts with.

    Args:
        shape: of one picture's latents, (1, C, h, w).
        image: whose latents it starts with, if any.
    Raises:
        BundleError: the host has no such scheduler or spacing.
    """
    host = HOSTS[request.host]
    each = _of_one_stream if host.shares_noise else _of_own_streams
    return each(request, bundle, host, shape, image)


def _of_one_stream(
    request: Request, bundle: Bundle, host: Host, shape: tuple[int, ...], image: Moments | None
) -> Iterator[Start]:
    """All noise first, then the numbers for the latents of the image, which all pictures share."""
    stream = noise_of(host, request.rng, request.seed)
    noises = [_tensor(stream.array(shape), host) for _ in range(request.count)]
    latents = None if image is None else image.sampled(
        stream.singles(image.mean.size), bundle.scale_factor)
    generator = torch.Generator().manual_seed(request.seed)
    for noise in noises:
        yield _start(schedule(request, bundle, host, generator), noise, latents, request.seed)


def _of_own_streams(
    request: Request, bundle: Bundle, host: Host, shape: tuple[int, ...], image: Moments | None
) -> Iterator[Start]:
    """The numbers for the latents of the image first, then the noise, then those of the steps."""
    for seed in range(request.seed, request.seed + request.count):
        stream = noise_of(host, request.rng, seed)
        latents = None if image is None else image.sampled(
            stream.array(shape), bundle.scale_factor)
        noise = _tensor(stream.array(shape), host)
        generator = getattr(stream, "generator", None) or torch.Generator().manual_seed(seed)
        yield _start(schedule(request, bundle, host, generator), noise, latents, seed)


def _start(
    steps: Schedule, noise: torch.Tensor, latents: torch.Tensor | None, seed: int
) -> Start:
    first = steps.initial(noise) if latents is None else steps.noised(latents, noise)
    return Start(seed=seed, latents=first, schedule=steps)


def _tensor(noise: np.ndarray, host: Host) -> torch.Tensor:
    rounded = noise.astype(np.float16) if host.rounds_noise else noise
    return torch.from_numpy(rounded.astype(np.float32))
