"""The hosts of a bundle, as data: how each draws, where it differs from the others.

To add a host is to add an entry here. What an entry names is found by its name: random numbers in
`runtime/rng`, tokenizers in `runtime/tokenizers`, schedulers in `runtime/schedulers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sdbuild.bundle.request import SEEDS, Request

_STRENGTH = 0.8
"""The default `strength` of image-to-image without a mask, as in diffusers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A host's preprocessing for the safety checker: (levels from 0 to 1 - `mean`) / `std`, by
    channel. A picture that is not square is squeezed into one if `is_squeezed`, else cropped."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    is_squeezed: bool = False


LOOK_OF_CLIP = Look(mean=(0.48145466, 0.4578275, 0.40821073),
                    std=(0.26862954, 0.26130258, 0.27577711))
"""Of the pictures that CLIP was trained on.

Source:
    `feature_extractor/preprocessor_config.json` of the published checkpoints. Apple's Swift package
    has those of ImageNet; see `docs/formats/bundle.md`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host and how it generates.

    `rngs` maps each name of a generator to the module that has it, the host's default first.
    `schedules` is the module of its schedulers, `schedulers` are those it has, all if empty, and
    `spacing` is that of its timesteps, the checkpoint's own if empty. `guides_from` is the least
    guidance at which it asks for the negative prompt too, inclusive or not as `includes_it` says.
    One that `shares_noise` draws the numbers for all pictures of a request from one stream, before
    those for the latents of an image; else each picture has a seed of its own. `rounds_noise` says
    that noise is rounded to fp16, `seeds` how many seeds there are, and `drops_whole` that an image
    of which nothing is kept is not looked at. `takes` are the pictures that it can be given, and
    `blackens` says that their transparent pixels are black. `checks` is how it shows pictures to a
    safety checker.

    Of Stable Diffusion XL: `always_guides` says that the negative prompt is always asked for,
    `encodes_empty` that it is encoded if it is not given, `told_px` are the sides of the picture
    that the U-Net is given, the true ones if 0, and `refiner_start` is the share of the steps after
    which a refiner takes over.
    """

    name: str
    title: str
    rngs: Mapping[str, str]
    tokenizer: str
    schedules: str
    schedulers: tuple[str, ...] = ()
    spacings: tuple[str, ...] = ("linspace", "leading", "trailing")
    spacing: str = ""
    guides_at_one: bool = False
    shares_noise: bool = False
    rounds_noise: bool = False
    drops_whole: bool = False
    takes: tuple[str, ...] = ("image", "mask", "control")
    blackens: bool = False
    checks: Look = LOOK_OF_CLIP
    always_guides: bool = False
    encodes_empty: bool = False
    told_px: int = 0
    refiner_start: float = 0.8
    seeds: int = SEEDS

    def strength(self, request: Request) -> float | None:
        """Returns the share of a request's image that is replaced; None if there is none, or none
        is used."""
        if request.image is None:
            return None
        strength = request.strength
        if strength is None:
            strength = _STRENGTH if request.mask is None else 1.0
        return None if self.drops_whole and strength >= 1 else strength

    def singles(self, request: Request) -> tuple[Request, ...]:
        """Returns a request for several pictures as requests for one each: each with a seed of its
        own, or with its number where all are of one stream."""
        if self.shares_noise and request.count > 1:
            return tuple(replace(request, number=number) for number in request.numbers)
        return tuple(replace(request, seed=request.seed + number - 1, count=1, number=None)
                     for number in request.numbers)

    def is_guided(self, guidance: float, family: str) -> bool:
        """Whether it asks for the negative prompt too, at this weight of the prompt."""
        if self.always_guides and family != "sd":
            return True
        return guidance > 1 or (guidance == 1 and self.guides_at_one)


DIFFUSERS = Host(
    name="diffusers",
    title="diffusers",
    rngs={"torch": "torch", "numpy": "numpy", "nvidia": "nvidia"},
    tokenizer="clip",
    schedules="diffusers",
)

SWIFT = Host(
    name="swift",
    title="Apple's Swift package",
    rngs={"numpy": "numpy", "torch": "swift_torch", "nvidia": "nvidia"},
    tokenizer="swift",
    schedules="swift",
    schedulers=("dpm", "pndm"),
    spacings=("linspace", "leading"),
    spacing="linspace",
    guides_at_one=True,
    shares_noise=True,
    drops_whole=True,
    takes=("image", "control"),
    blackens=True,
    checks=Look(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), is_squeezed=True),
    always_guides=True,
    encodes_empty=True,
    told_px=1024,
    seeds=1 << 32,
)
"""Source: apple/ml-stable-diffusion at e12202c, run on Linux; see `tests/fixtures/swift`."""

SWIFT_SCHEDULE = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "trained_betas": None, "rescale_betas_zero_snr": False,
}
"""The schedule of noise that the Swift package has built in, in diffusers' words.

Source:
    apple/ml-stable-diffusion at e12202c, the Swift pipeline and its schedulers.
"""

APPLE_PYTHON = Host(
    name="apple-python",
    title="Apple's Python pipeline",
    rngs={"numpy": "numpy", "torch": "torch", "nvidia": "nvidia"},
    tokenizer="clip",
    schedules="diffusers",
    rounds_noise=True,
    takes=("control",),
    seeds=1 << 32,
)
"""Source: apple/ml-stable-diffusion at e12202c, `python_coreml_stable_diffusion/pipeline.py`."""

HOSTS = {host.name: host for host in (DIFFUSERS, SWIFT, APPLE_PYTHON)}
RNGS = tuple(DIFFUSERS.rngs)
SPACINGS = DIFFUSERS.spacings
TOKENIZERS = tuple(sorted({host.tokenizer for host in HOSTS.values()}))
