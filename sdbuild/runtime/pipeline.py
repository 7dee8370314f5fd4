"""Stable Diffusion: prompt to picture, over predictors, as one of the hosts draws it.

The order is the same for all: embeddings, noise and a schedule, a prediction in each step with
classifier-free guidance, the decoder. What differs is said by `bundle/hosts.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sdbuild.base.errors import BundleError
from sdbuild.base.suggestions import did_you_mean
from sdbuild.bundle.hosts import HOSTS
from sdbuild.bundle.manifest import Bundle
from sdbuild.bundle.request import SEEDS, Request
from sdbuild.runtime import images
from sdbuild.runtime.denoise import Denoiser, Guide
from sdbuild.runtime.networks import Networks
from sdbuild.runtime.predictor import Predictor, chosen
from sdbuild.runtime.prompts import Condition, Prompts
from sdbuild.runtime.safety_checker import SafetyChecker
from sdbuild.runtime.starts import Masked, Moments, Start, starts
from sdbuild.runtime.trace import Trace

Watch = Callable[[int, Callable[[], Image.Image]], object]
"""Takes the number of a step, and what gives the picture as it is after it."""


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
        self._networks = Networks(bundle, predictor, weight_bytes, parts)
        self.prompts = Prompts(bundle, self._networks)
        self._is_checked = parts is None and "safety_checker" in bundle.models
        self._loads_first = parts is None
        self.predictor = chosen(predictor)
        self.load_s = 0.0

    def load(self, request: Request) -> None:
        """Loads the models that a request is drawn with, before any work is done.

        Raises:
            BundleError: there is none, or it does not take what it is given here, or the host or
                the bundle has not what is asked for.
        """
        started = time.monotonic()
        self.check(request)
        if self._loads_first:
            self._networks.load(request)
        if self._is_checked:
            self._networks.part("safety_checker")
        self.load_s += time.monotonic() - started

    def check(self, request: Request) -> None:
        """Finds out whether the host and the bundle can follow all that is asked for.

        Raises:
            BundleError: they cannot, or a setting is for something that is not there.
        """
        host = HOSTS[request.host]
        for name in ("image", "mask", "control"):
            if getattr(request, name) and name not in host.takes:
                raise BundleError(f"{name}: {host.title} takes none",
                                  hint="leave it out, or use another host")
        for name in ("mask", "strength"):
            if getattr(request, name) is not None and not request.image:
                raise BundleError(f"{name}: there is no image to replace a part of",
                                  hint="give one: image=FILE")
        if request.refiner is not None and "refiner" not in self.bundle.models:
            raise BundleError(f"refiner={request.refiner:g}: {self.bundle.folder} has no refiner",
                              hint="leave it out")
        if request.seed + request.count > SEEDS:
            raise BundleError(
                f"count={request.count}: seeds from {request.seed} end at {SEEDS - 1}",
                hint="give a smaller seed")
        if request.number is not None and request.number > request.count:
            raise BundleError(f"number={request.number}: there is no such image of "
                              f"count={request.count}",
                              hint="count is how many images the request is for")
        known = [name.partition("/")[2] for name in self.bundle.models
                 if name.startswith("controlnet/")]
        for control in request.control or ():
            if control.name not in known:
                raise BundleError(
                    f"control={control.name}: no such ControlNet in {self.bundle.folder}"
                    f"{did_you_mean(control.name, known)}",
                    hint=f"it has: {', '.join(known) or 'none'}")

    def batch(self, request: Request) -> int:
        """Returns the batch of a request's denoiser."""
        return self._networks.latents_shape(request)[0]

    def draw(
        self, request: Request, progress: Callable[[int], object] = lambda steps: None,
        trace: Trace | None = None, watch: Watch = lambda step, picture: None,
    ) -> Iterator[Result]:
        """Returns the pictures of a request one by one.

        Args:
            progress: called after each step, with the number of all.
            trace: takes what the first picture is made of.
            watch: called after each step but the last, with its number from 1, and with what gives
                the picture as it is.
        """
        self.load(request)
        started = time.monotonic()
        conditions = self.conditions(request)
        encode_s = time.monotonic() - started
        for start in self.starts(request):
            started = time.monotonic()
            latents = self.denoise(conditions, start, request, progress, trace, watch)
            trace = None
            denoised = time.monotonic()
            image = self.decode(latents)
            decoded = time.monotonic()
            seconds = {
                "encode": encode_s, "denoise": denoised - started, "decode": decoded - denoised,
            }
            image, is_flagged = self._checked(image, request)
            if is_flagged is not None:
                seconds["check"] = time.monotonic() - decoded
            yield Result(
                image=image, is_flagged=is_flagged, seed=start.seed,
                steps=len(start.schedule.timesteps), seconds=seconds,
            )

    def truncated_part(self, request: Request, prompt: str) -> str:
        """Returns the end of a prompt that the text encoder does not see, because it takes so many
        tokens and no more; empty if it sees all."""
        encoder = self._networks.encoders[0]
        return self.prompts.tokenizer(request, encoder).truncated(
            prompt, self.prompts.length(encoder))

    def conditions(self, request: Request) -> Mapping[str, Condition]:
        """Returns each denoiser's conditions from a request's prompts."""
        return self.prompts.conditions(request)

    def starts(self, request: Request) -> Iterator[Start]:
        """Yields the start of each image of a request.

        Raises:
            BundleError: the denoiser needs a mask, and there is none.
        """
        host = HOSTS[request.host]
        channels, *cells = self._networks.latents_shape(request)[1:]
        is_native = channels % 2 == 1  # latents, a mask, and latents again
        shape = (1, channels // 2 if is_native else channels, *cells)
        if is_native and not request.mask:
            raise BundleError(f"{self.bundle.folder}: its U-Net is for inpainting, and there is no "
                              "mask", hint="give both: image=FILE mask=FILE")
        image = masked = None
        if request.image and host.strength(request) is not None:
            array = self._image(request.image, host.blackens)
            image = self._moments(array, shape)
            if request.mask:
                masked = self._masked(request.mask, array, shape, is_native)
        return starts(request, self.bundle, shape, image, masked)

    def _image(self, path: str, blackens: bool) -> np.ndarray:
        """Returns the picture in a file, fitted to the size of the bundle's encoder: (1, 3, H,
        W)."""
        *_, height, width = self._networks.shape("vae_encoder", "x")
        picture = images.fitted(images.read(Path(path)), (width, height))
        return images.to_array(picture, blackens=blackens)

    def _moments(self, image: np.ndarray, shape: tuple[int, ...]) -> Moments:
        """Returns the latents of a picture."""
        found = self._networks.output(
            "vae_encoder", {"x": image}, "latent", (1, 2 * shape[1], *shape[2:])
        ).astype(np.float32)
        mean, log_variance = np.split(found, 2, axis=1)
        return Moments(mean=mean, std=np.exp(log_variance.clip(-30, 20) / 2))

    def _masked(
        self, path: str, image: np.ndarray, shape: tuple[int, ...], is_native: bool
    ) -> Masked:
        """Returns the part of an image that is replaced, by a mask that is white there."""
        height, width = image.shape[2:]
        picture = images.fitted(images.read(Path(path)), (width, height)).convert("L")
        mask = (np.asarray(picture, np.float32)[None, None] / 255 >= 0.5).astype(np.float32)
        stride = height // shape[2]
        return Masked(cells=mask[..., ::stride, ::stride], is_native=is_native,
                      rest=self._moments(image * (mask < 0.5), shape))

    def _guides(self, request: Request) -> list[Guide]:
        """Returns the ControlNets of a request."""
        blackens = HOSTS[request.host].blackens
        found = []
        for control in request.control or ():
            component = f"controlnet/{control.name}"
            *_, height, width = self._networks.shape(component, "controlnet_cond")
            picture = images.fitted(images.read(Path(control.image)), (width, height))
            found.append(Guide(component=component, scale=control.scale,
                               picture=images.to_array(picture, 0, blackens)))
        return found

    def denoise(
        self, conditions: Mapping[str, Condition], start: Start, request: Request,
        progress: Callable[[int], object] = lambda steps: None, trace: Trace | None = None,
        watch: Watch = lambda step, picture: None,
    ) -> torch.Tensor:
        """Returns the latents of a picture.

        Shapes:
            returns (1, C, h, w).
        """
        denoiser = Denoiser(bundle=self.bundle, networks=self._networks, request=request,
                            conditions=conditions, guides=self._guides(request))
        def show(step: int, latents: torch.Tensor) -> None:
            watch(step, lambda: self._checked(self.decode(latents), request)[0])

        return denoiser.run(start, progress, trace or (lambda name, array: None), show)

    def _checked(
        self, image: Image.Image, request: Request
    ) -> tuple[Image.Image, bool | None]:
        """Returns a picture, black if the bundle's safety checker flags it, and what that says."""
        if not self._is_checked:
            return image, None
        checker = SafetyChecker(self._networks.part("safety_checker"), self.bundle.name)
        is_flagged = checker.flags(image, HOSTS[request.host].checks)
        return Image.new("RGB", image.size) if is_flagged else image, is_flagged

    def decode(self, latents: torch.Tensor) -> Image.Image:
        """Returns the picture of some latents.

        Shapes:
            latents: (1, C, h, w).
        Raises:
            NotFinite: the decoder gave NaN or infinity, which would be a black picture.
        """
        z = (latents / self.bundle.scale_factor + self.bundle.shift_factor).numpy()
        inputs = {"z": z.astype(np.float32)}
        found = self._networks.output("vae_decoder", inputs, "image", (1, 3, None, None))[0]
        return images.to_picture(found, self.bundle.name)
