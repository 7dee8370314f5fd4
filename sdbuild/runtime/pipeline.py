"""Stable Diffusion: prompt to picture, over predictors, as one of the hosts draws it.

The order is the same for all: embeddings, noise and a schedule, a prediction in each step with
classifier-free guidance, the decoder. What differs is said by `bundle/hosts.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sdbuild.bundle.hosts import HOSTS
from sdbuild.bundle.manifest import Bundle
from sdbuild.bundle.request import Request
from sdbuild.runtime import images, tokenizers
from sdbuild.runtime.networks import NEEDED, Networks
from sdbuild.runtime.predictor import Predictor
from sdbuild.runtime.safety_checker import SafetyChecker
from sdbuild.runtime.starts import Moments, Start, starts
from sdbuild.runtime.trace import Trace

Condition = Mapping[str, np.ndarray]
"""What the U-Net is given beside sample and timestep, by input: the negative prompt's, then the
prompt's, on the leading axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A picture, the seed of its noise, its steps, and the seconds that each part took.

    `is_flagged` is what the bundle's safety checker says, None if it has none; a flagged picture
    is black.
    """

    image: Image.Image
    is_flagged: bool | None
    seed: int
    steps: int
    seconds: Mapping[str, float]


class Pipeline:
    """Draws from one bundle; its models are loaded once.

    Args:
        parts: gives the predictor of each component, instead of the bundle's own models.
    Units:
        weight_bytes: of decoded weights that the executor keeps of each component, all if None.
    """

    def __init__(
        self, bundle: Bundle, predictor: str = "auto", weight_bytes: int | None = None,
        parts: Callable[[str], Predictor] | None = None,
    ) -> None:
        self.bundle = bundle
        started = time.monotonic()
        self._networks = Networks(bundle, predictor, weight_bytes, parts)
        self._tokenizers: dict[str, tokenizers.Tokenizer] = {}
        self._checker = None
        if parts is None:
            self._networks.load(*NEEDED)
            if "safety_checker" in bundle.models:
                self._checker = SafetyChecker(self._networks.part("safety_checker"), bundle.name)
        self.load_s = time.monotonic() - started

    def draw(
        self, request: Request, progress: Callable[[int], object] = lambda steps: None,
        trace: Trace | None = None,
    ) -> Iterator[Result]:
        """Gives the pictures of a request one by one.

        Args:
            progress: called after each step, with the number of all.
            trace: takes what the first picture is made of.
        """
        started = time.monotonic()
        condition = self.condition(request)
        encode_s = time.monotonic() - started
        for start in self.starts(request):
            started = time.monotonic()
            latents = self.denoise(condition, start, request, progress, trace)
            trace = None
            denoised = time.monotonic()
            image = self.decode(latents)
            decoded = time.monotonic()
            seconds = {
                "encode": encode_s, "denoise": denoised - started, "decode": decoded - denoised,
            }
            is_flagged = None
            if self._checker is not None:
                is_flagged = self._checker.flags(image)
                seconds["check"] = time.monotonic() - decoded
            yield Result(
                image=Image.new("RGB", image.size) if is_flagged else image,
                is_flagged=is_flagged, seed=start.seed, steps=len(start.schedule.timesteps),
                seconds=seconds,
            )

    @property
    def batch(self) -> int:
        """How many latents the U-Net takes at once."""
        return self._networks.shape("unet", "sample")[0]

    def other_words(self, request: Request) -> tuple[str, ...]:
        """The words of a request's prompts that its host reads as other tokens than CLIP."""
        own, clip = self._tokenizer(request), self._tokenizer(replace(request, tokenizer="clip"))
        words = f"{request.prompt} {request.negative}".split()
        return tuple(dict.fromkeys(
            word for word in words if own.ids(word, 77) != clip.ids(word, 77)))

    def truncated_part(self, request: Request, prompt: str) -> str:
        """The end of a prompt that the text encoder does not see, because it takes so many tokens
        and no more; empty if it sees all."""
        return self._tokenizer(request).truncated(prompt, self._length)

    def condition(self, request: Request) -> Condition:
        """What a request's prompts make of the pictures.

        Shapes:
            encoder_hidden_states: (2, D, 1, S).
        """
        both = [self._encoded(request, p) for p in (request.negative, request.prompt)]
        return {"encoder_hidden_states": np.concatenate(both)}

    def _tokenizer(self, request: Request) -> tokenizers.Tokenizer:
        name = request.tokenizer or HOSTS[request.host].tokenizer
        if name not in self._tokenizers:
            self._tokenizers[name] = tokenizers.load(name, self.bundle.folder,
                                                     self.bundle.pad_token)
        return self._tokenizers[name]

    @property
    def _length(self) -> int:
        return self._networks.shape("text_encoder", "input_ids")[-1]

    def _encoded(self, request: Request, prompt: str) -> np.ndarray:
        """The embedding of a prompt, as the U-Net takes it.

        Shapes:
            returns (1, D, 1, S).
        """
        tokens = self._tokenizer(request).ids(prompt, self._length)
        embedding = self._networks.output(
            "text_encoder", {"input_ids": np.array([tokens], np.float32)},
            "last_hidden_state", (1, None, None))
        return embedding.transpose(0, 2, 1)[:, :, None]  # -> (1, D, 1, S)

    def starts(self, request: Request) -> Iterator[Start]:
        """What each picture of a request starts with."""
        cells = self._networks.shape("unet", "sample")[1:]
        is_used = HOSTS[request.host].strength(request) is not None
        image = self._moments(Path(request.image)) if is_used and request.image else None
        return starts(request, self.bundle, (1, *cells), image)

    def _moments(self, path: Path) -> Moments:
        """The latents of the picture in a file, which is fitted to the bundle's size."""
        *_, height, width = shape = self._networks.shape("vae_encoder", "x")
        picture = images.fitted(images.read(path), (width, height))
        cells = self._networks.shape("unet", "sample")[1:]
        found = self._networks.output(
            "vae_encoder", {"x": images.to_array(picture).reshape(shape)}, "latent",
            (1, 2 * cells[0], *cells[1:])).astype(np.float32)
        mean, log_variance = np.split(found, 2, axis=1)
        return Moments(mean=mean, std=np.exp(log_variance.clip(-30, 20) / 2))

    def denoise(
        self, condition: Condition, start: Start, request: Request,
        progress: Callable[[int], object] = lambda steps: None, trace: Trace | None = None,
    ) -> torch.Tensor:
        """The latents of a picture.

        Shapes:
            returns (1, C, h, w).
        """
        schedule, sample = start.schedule, start.latents
        trace = trace or (lambda name, array: None)
        negative, prompt = condition["encoder_hidden_states"][:, :, 0].transpose(0, 2, 1)
        trace("neg_embeddings", negative[None])
        trace("text_embeddings", prompt[None])
        trace("initial_latents", sample.numpy())
        trace("timesteps", np.array([float(t) for t in schedule.timesteps]))
        is_guided = HOSTS[request.host].is_guided(request.guidance)
        batch = self.batch
        if batch == 1 and not is_guided:
            condition = {name: value[1:] for name, value in condition.items()}
        for index, timestep in enumerate(schedule.timesteps):
            *without, noise = self._predicted(
                schedule.scaled(sample, index), float(timestep), condition, batch).split(1)
            if is_guided:
                noise = without[0] + request.guidance * (noise - without[0])
            sample = schedule.step(noise, index, sample)
            trace(f"noise_pred_step{index}", noise.numpy())
            trace(f"latents_step{index}", sample.numpy())
            progress(len(schedule.timesteps))
        return schedule.result(sample)

    def _predicted(
        self, sample: torch.Tensor, timestep: float, condition: Condition, batch: int
    ) -> torch.Tensor:
        """What the U-Net predicts for each prompt, in as many calls as its batch asks for.

        Shapes:
            sample: (1, C, h, w); returns (N, C, h, w), N prompts.
        """
        count = len(next(iter(condition.values())))
        found = [
            self._networks.output("unet", {
                "sample": sample.repeat(batch, 1, 1, 1).numpy(),
                "timestep": np.full((batch,), timestep, np.float32),
                **{name: value[first:first + batch] for name, value in condition.items()},
            }, "noise_pred", (batch, *sample.shape[1:]))
            for first in range(0, count, batch)
        ]
        return torch.from_numpy(np.concatenate(found).astype(np.float32))

    def decode(self, latents: torch.Tensor) -> Image.Image:
        """The picture of some latents.

        Shapes:
            latents: (1, C, h, w).
        Raises:
            NotFinite: the decoder gave NaN or infinity, which would be a black picture.
        """
        z = (latents / self.bundle.scale_factor).numpy().astype(np.float32)
        found = self._networks.output("vae_decoder", {"z": z}, "image", (1, 3, None, None))[0]
        return images.to_picture(found, self.bundle.name)
