"""Stable Diffusion: prompt to picture, over predictors.

The order is diffusers' own: noise from a seeded generator, classifier-free guidance, a scheduler
of diffusers with the bundle's config, the decoder. The same seed gives the same noise as there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from sdbuild.base.errors import BundleError, NotFinite
from sdbuild.bundle.manifest import MANIFEST, Bundle
from sdbuild.bundle.request import Request
from sdbuild.runtime.predictor import Chain, Predictor, load
from sdbuild.runtime.safety_checker import SafetyChecker

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpm": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "pndm": "PNDMScheduler",
}
"""diffusers' class of each scheduler."""

_RANKS = {
    "text_encoder": {"input_ids": 2},
    "unet": {"sample": 4, "timestep": 1, "encoder_hidden_states": 4},
    "vae_decoder": {"z": 4},
    "safety_checker": {"clip_input": 4, "images": 4, "adjustment": 1},
}
"""The inputs that each component must have, with the number of their dimensions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A picture, the seed of its noise, and the seconds that each part took.

    `is_flagged` is what the bundle's safety checker says, None if it has none; a flagged picture
    is black.
    """

    image: Image.Image
    is_flagged: bool | None
    seed: int
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
        self._weight_bytes = weight_bytes
        started = time.monotonic()
        self._part = parts or {
            name: self._load(name, predictor) for name in ("text_encoder", "unet", "vae_decoder")
        }.__getitem__
        self._checker = (
            SafetyChecker(self._load("safety_checker", predictor), bundle.name)
            if "safety_checker" in bundle.models else None
        )
        self._tokenizer = _tokenizer(bundle)
        self.load_s = time.monotonic() - started

    def _load(self, component: str, predictor: str) -> Chain:
        """The models of a component, with the inputs that it is given here."""
        if component not in self.bundle.models:
            raise BundleError(
                f"{self.bundle.folder}: no {component}, which drawing needs",
                hint="build it with components=text_encoder,unet,vae_decoder",
            )
        chain = load(self.bundle.models[component], predictor, self.bundle.attention,
                     self._weight_bytes)
        found = {name: len(shape) for name, shape in chain.shapes.items()}
        if not _RANKS[component].items() <= found.items():
            raise self._misfit(component, "inputs", found, _RANKS[component])
        return chain

    def _output(
        self, component: str, inputs: Mapping[str, np.ndarray], name: str,
        shape: tuple[int | None, ...],
    ) -> np.ndarray:
        """What a component gives under a name, of this shape (None: any size)."""
        found = self._part(component).predict(inputs)
        sizes = found[name].shape if name in found else ()
        if len(sizes) != len(shape) or any(
                wanted not in (None, size) for size, wanted in zip(sizes, shape, strict=True)):
            raise self._misfit(component, f"output {name}", sizes or "nothing", shape)
        return found[name]

    def _misfit(self, component: str, what: str, found: object, expected: object) -> BundleError:
        return BundleError(
            f"{self.bundle.folder}: {component}: {what}: found {found}, "
            f"expected {expected}",
            hint=f"sdbuild contract {self.bundle.folder} says what else is wrong",
        )

    def draw(
        self, request: Request, progress: Callable[[], object] = lambda: None
    ) -> Iterator[Result]:
        """Gives the pictures of a request one by one; calls `progress` after each step."""
        started = time.monotonic()
        embeddings = np.concatenate(
            [self.encode(request.negative), self.encode(request.prompt)]
        )
        encode_s = time.monotonic() - started
        for seed in range(request.seed, request.seed + request.count):
            started = time.monotonic()
            latents = self.denoise(embeddings, request, seed, progress)
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
                is_flagged=is_flagged, seed=seed, seconds=seconds,
            )

    def truncated_part(self, prompt: str) -> str:
        """The end of a prompt that the text encoder does not see, because it takes so many tokens
        and no more; empty if it sees all."""
        length = self._part("text_encoder").shapes["input_ids"][-1]
        words = self._tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids
        return str(self._tokenizer.decode(words[length - 2:]))  # it starts and ends with a token

    def encode(self, prompt: str) -> np.ndarray:
        """The embedding of a prompt.

        Shapes:
            returns (1, D, 1, S), as the U-Net takes it.
        """
        length = self._part("text_encoder").shapes["input_ids"][-1]
        tokens = self._tokenizer(
            prompt, padding="max_length", max_length=length, truncation=True
        ).input_ids
        embedding = self._output(
            "text_encoder", {"input_ids": np.array([tokens], np.float32)},
            "last_hidden_state", (1, None, None))
        return embedding.transpose(0, 2, 1)[:, :, None]  # -> (1, D, 1, S)

    def denoise(
        self, embeddings: np.ndarray, request: Request, seed: int, progress: Callable[[], object]
    ) -> torch.Tensor:
        """The latents of a picture.

        Shapes:
            embeddings: (2, D, 1, S), the negative prompt first; returns (1, C, h, w).
        """
        scheduler = _scheduler(request.scheduler, self.bundle, request.steps)
        batch, *cells = self._part("unet").shapes["sample"]
        # As in diffusers, weights up to 1 mean the prompt's own prediction.
        is_guided = request.guidance > 1
        if batch == 1 and not is_guided:
            embeddings = embeddings[1:]
        generator = torch.Generator().manual_seed(seed)
        latents = torch.randn(1, *cells, generator=generator) * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            sample = scheduler.scale_model_input(latents, timestep)
            *without, noise = self._predict_noise(sample, timestep, embeddings, batch).split(1)
            if is_guided:
                noise = without[0] + request.guidance * (noise - without[0])
            latents = scheduler.step(noise, timestep, latents, return_dict=False)[0]
            progress()
        return latents

    def _predict_noise(
        self, sample: torch.Tensor, timestep: torch.Tensor, embeddings: np.ndarray, batch: int
    ) -> torch.Tensor:
        """The noise for each embedding, in as many calls as the U-Net's batch asks for.

        Shapes:
            sample: (1, C, h, w); embeddings: (N, D, 1, S); returns (N, C, h, w).
        """
        found = [
            self._output("unet", {
                "sample": sample.repeat(batch, 1, 1, 1).numpy(),
                "timestep": np.full((batch,), float(timestep), np.float32),
                "encoder_hidden_states": embeddings[start:start + batch],
            }, "noise_pred", (batch, *sample.shape[1:]))
            for start in range(0, len(embeddings), batch)
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
        found = self._output("vae_decoder", {"z": z}, "image",
                             (1, 3, None, None))[0]
        if not np.isfinite(found).all():
            raise NotFinite(
                f"{self.bundle.name}: the decoder gave numbers that are not finite",
                hint="doit check names the operation that made them",
            )
        levels = (found / 2 + 0.5).clip(0, 1).transpose(1, 2, 0) * 255  # -> (H, W, 3)
        return Image.fromarray(levels.round().astype(np.uint8))


def _tokenizer(bundle: Bundle) -> Any:
    """CLIP's tokenizer from the bundle's own two files.

    Raises:
        BundleError: they are none; transformers says so in many ways.
    """
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer.from_pretrained(str(bundle.folder), pad_token=bundle.pad_token)
    except Exception as error:
        raise BundleError(f"{bundle.folder}: vocab.json and merges.txt are no tokenizer: {error}",
                          hint=f"sdbuild contract {bundle.folder} says why") from error


def _scheduler(name: str, bundle: Bundle, steps: int) -> Any:
    """diffusers' scheduler `name` with the config of the checkpoint's, for what the U-Net gives.

    Raises:
        BundleError: diffusers does not take the config.
    """
    import diffusers

    config = {**bundle.scheduler, "prediction_type": bundle.prediction_type}
    try:
        scheduler = getattr(diffusers, SCHEDULERS[name]).from_config(config)
        scheduler.set_timesteps(steps)
    except Exception as error:
        raise BundleError(f"{bundle.folder / MANIFEST}: scheduler: {name} cannot take it for "
                          f"{steps} steps: {error}", hint="take another scheduler") from error
    return scheduler
