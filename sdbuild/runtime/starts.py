"""The start of each image: its noise, its schedule, and the latents of an image.

Hosts draw their random numbers in different orders, so the same seed gives the
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

    def sampled(self, numbers: np.ndarray, bundle: Bundle) -> torch.Tensor:
        """Latents, of normally distributed numbers, as the bundle's denoiser takes them."""
        found = self.mean + self.std * numbers.reshape(self.mean.shape) - bundle.shift_factor
        return torch.from_numpy(found.astype(np.float32) * np.float32(bundle.scale_factor))


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """The part of an image that is replaced: its cells, 1 where that is, and the image without
    them.

    `is_native` says whether the U-Net was made for it, and is shown both.

    Shapes:
        cells: (1, 1, h, w).
    """

    cells: np.ndarray
    rest: Moments
    is_native: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """A mask while a picture is drawn; `image` is None if the U-Net was made for masks.

    Shapes:
        cells: (1, 1, h, w); rest, image, noise: (1, C, h, w).
    """

    cells: torch.Tensor
    rest: torch.Tensor
    image: torch.Tensor | None
    noise: torch.Tensor

    def joined(self, sample: torch.Tensor) -> torch.Tensor:
        """Returns a sample as the U-Net takes it: one for masks has the mask and the rest behind
        it.

        Shapes:
            sample: (1, C, h, w); returns (1, C or 2C + 1, h, w).
        """
        return sample if self.image is not None else torch.cat(
            [sample, self.cells, self.rest], dim=1)

    def kept(self, steps: Schedule, index: int, sample: torch.Tensor) -> torch.Tensor:
        """Returns a sample after a step, with the image where nothing is drawn anew.

        Shapes:
            sample, returns: (1, C, h, w).
        """
        if self.image is None:
            return sample
        known = self.image
        if index + 1 < len(steps.timesteps):
            known = steps.noised(known, self.noise, index + 1)
        return (1 - self.cells) * known + self.cells * sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The start of one image; its seed is that of its noise."""

    seed: int
    latents: torch.Tensor
    schedule: Schedule
    mask: Mask | None = None


def noise_of(host: Host, rng: str | None, seed: int) -> Noise:
    """Returns a host's stream of random numbers; a seed that it does not have stands for its last
    bits."""
    name = host.rngs[rng or next(iter(host.rngs))]
    module: Any = importlib.import_module(f"sdbuild.runtime.rng.{name}")
    stream: Noise = module.Stream(seed % host.seeds)
    return stream


def starts(
    request: Request, bundle: Bundle, shape: tuple[int, ...], image: Moments | None,
    masked: Masked | None = None,
) -> Iterator[Start]:
    """Yields the start of each image of a request.

    Args:
        shape: of one picture's latents, (1, C, h, w).
        image: whose latents it starts with, if any.
        masked: the part of the image to generate, all of it if None.
    Raises:
        BundleError: the host has no such scheduler or spacing.
    """
    host = HOSTS[request.host]
    if host.shares_noise:
        yield from _of_one_stream(request, bundle, host, shape, image)
        return
    for seed in (request.seed + number - 1 for number in request.numbers):
        stream = noise_of(host, request.rng, seed)
        generator = getattr(stream, "generator", None) or torch.Generator().manual_seed(seed)
        steps = schedule(request, bundle, host, generator)
        yield _of_own_stream(host, stream, steps, shape, image, masked, bundle, seed)


def _of_one_stream(
    request: Request, bundle: Bundle, host: Host, shape: tuple[int, ...], image: Moments | None
) -> Iterator[Start]:
    """Yields all noise first, then the numbers for the latents of the image, which all pictures
    share."""
    stream = noise_of(host, request.rng, request.seed)
    noises = [_tensor(stream.array(shape), host) for _ in range(request.count)]
    latents = None if image is None else image.sampled(
        stream.singles(image.mean.size), bundle)
    for noise in (noises[number - 1] for number in request.numbers):
        steps = schedule(request, bundle, host, torch.Generator())
        first = steps.initial(noise) if latents is None else steps.noised(latents, noise)
        yield Start(seed=request.seed, latents=first, schedule=steps)


def _of_own_stream(
    host: Host, stream: Noise, steps: Schedule, shape: tuple[int, ...], image: Moments | None,
    masked: Masked | None, bundle: Bundle, seed: int,
) -> Start:
    """Returns the numbers for the latents of the image, the noise, the numbers for the rest of the
    image: in the order of diffusers' pipelines, and only those that they draw.

    Source:
        diffusers 0.42, `StableDiffusionImg2ImgPipeline` and `StableDiffusionInpaintPipeline`.
    """
    is_whole = masked is not None and not steps.is_cut
    needs_image = image is not None and not (is_whole and masked and masked.is_native)
    latents = image.sampled(stream.array(shape), bundle) if image and needs_image else None
    noise = _tensor(stream.array(shape), host)
    first = steps.initial(noise) if latents is None or is_whole else steps.noised(latents, noise)
    mask = None
    if masked is not None:
        mask = Mask(
            cells=torch.from_numpy(masked.cells), noise=noise,
            rest=masked.rest.sampled(stream.array(shape), bundle),
            image=None if masked.is_native else latents)
    return Start(seed=seed, latents=first, schedule=steps, mask=mask)


def _tensor(noise: np.ndarray, host: Host) -> torch.Tensor:
    rounded = noise.astype(np.float16) if host.rounds_noise else noise
    return torch.from_numpy(rounded.astype(np.float32))
