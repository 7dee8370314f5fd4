"""Notes on how a host treats a request, to be read before its image is shown: a line each.

The rules of bundles are in `bundle/rules`; these are of a bundle and a request together.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sdbuild.bundle.hosts import HOSTS, SWIFT, SWIFT_SCHEDULE
from sdbuild.bundle.manifest import Bundle
from sdbuild.bundle.request import Request
from sdbuild.bundle.rules.settings import SCALES
from sdbuild.bundle.schedulers import parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A request and the bundle that it is asked of.

    `batch` is that of its U-Net, and `other_words` are those words of the prompts that the host's
    tokenizer reads as other tokens than the checkpoint's. `image_size` is that of the image to
    begin with, (0, 0) if there is none.
    """

    bundle: Bundle
    request: Request
    batch: int
    other_words: tuple[str, ...] = ()
    image_size: tuple[int, int] = (0, 0)


Note = Callable[[Scene], str]
"""Says what the host does, or nothing."""


def _low_guidance(scene: Scene) -> str:
    """Returns the same fact as the contract's `low_guidance_has_a_batch_of_one`."""
    guidance = scene.request.guidance
    if guidance < 1 and scene.batch > 1 and scene.bundle.family == "sd":
        return (f"guidance={guidance:g} is sent as a batch of one, which this bundle's U-Net of "
                f"batch {scene.batch} refuses: no image there; build it with batch=1")
    return ""


def _negative_alone(scene: Scene) -> str:
    guidance = scene.request.guidance
    if guidance < 1 and scene.bundle.family != "sd":
        return (f"weighs the prompt with guidance={guidance:g}, and the negative prompt with the "
                "rest: a distilled model wants guidance=1 there")
    return ""


def _several_one_by_one(scene: Scene) -> str:
    request = scene.request
    if scene.batch == 1 and request.count > 1 and request.guidance >= 1:
        return "crashes at several images with a U-Net of batch one: ask for one at a time"
    return ""


def _words(scene: Scene) -> str:
    if not scene.other_words:
        return ""
    return f"reads other tokens than CLIP for: {' '.join(scene.other_words[:8])}"


def _learned(scene: Scene) -> str:
    """Returns the embeddings of which a prompt has some words and lacks others."""
    prompts = (scene.request.prompt, scene.request.negative)
    spoken = [set(re.findall("[a-z]+", prompt.lower())) for prompt in prompts]
    found = {" ".join(words): None for words in scene.bundle.words for known in spoken
             if known & set(words) and not known >= set(words)}
    return f"reads an embedding in part, of which all words are: {', '.join(found)}" \
        if found else ""


def _velocity(scene: Scene) -> str:
    found = scene.bundle.prediction_type
    if found == "epsilon" or scene.bundle.family == "sd3":
        return ""
    return f"takes the network's {found} for noise: a poor image"


def _schedule(scene: Scene) -> str:
    wrong = [name for name, value in SWIFT_SCHEDULE.items()
             if scene.bundle.scheduler.get(name, value) != value]
    return f"has a schedule of its own in place of the checkpoint's {', '.join(wrong)}" \
        if wrong else ""


def _scale(scene: Scene) -> str:
    wanted = SCALES.get(scene.bundle.family)
    found = scene.bundle.scale_factor
    if wanted is None or found == wanted:
        return ""
    return (f"divides latents by {wanted} unless the app says otherwise, this bundle's are scaled "
            f"by {found:g}: wrong colours")


def _whole_strength(scene: Scene) -> str:
    request = scene.request
    is_unused = request.image is not None and SWIFT.strength(request) is None
    return "does not look at the image at strength=1" if is_unused else ""


def _image_size(scene: Scene) -> str:
    size = (scene.bundle.width_px, scene.bundle.height_px)
    if scene.request.image is None or scene.image_size == size:
        return ""
    return "refuses an image of {}x{} pixels, it is fitted to {}x{} here".format(
        *scene.image_size, *size)


def _large_seed(scene: Scene) -> str:
    seed = scene.request.seed
    if seed < SWIFT.seeds:
        return ""
    return f"has seeds below 2^32 and uses {seed % SWIFT.seeds} for this one"


def _random_steps(scene: Scene) -> str:
    scheduler, _ = parts(scene.request.scheduler)
    return ("seeds the first noise alone: the noise that this scheduler adds in each step is "
            "another each time") if scheduler.adds_noise else ""


def _controlled_alone(scene: Scene) -> str:
    models = scene.bundle.models
    if scene.request.control or "unet" in models or "controlled_unet" not in models:
        return ""
    return "needs Unet.mlmodelc where no ControlNets are asked for: no image there"


_NOTES: Mapping[str, tuple[Note, ...]] = {
    "diffusers": (_learned, _image_size),
    "swift": (_low_guidance, _negative_alone, _several_one_by_one, _words, _learned, _velocity,
              _schedule, _scale, _whole_strength, _image_size, _large_seed,
              _controlled_alone),
    "apple-python": (_learned, _random_steps, _image_size, _large_seed),
}


def notes(scene: Scene) -> Iterator[str]:
    """Returns notes on what the host of a request does otherwise than the image generated here."""
    host = HOSTS[scene.request.host]
    for note in _NOTES[host.name]:
        if said := note(scene):
            yield f"{host.title} {said}"


def command_line(bundle: Bundle, request: Request) -> str:
    """Returns the command line that generates the same image on a Mac; empty if there is none."""
    if request.host != "swift" or request.karras or request.scheduler.endswith("_karras") or (
            request.spacing not in (None, "linspace") or request.tokenizer not in (None, "swift")):
        return ""
    options: dict[str, object] = {
        "--negative-prompt": request.negative or None,
        "--resource-path": bundle.folder,
        "--seed": request.seed % SWIFT.seeds, "--step-count": request.steps,
        "--guidance-scale": f"{request.guidance:g}",
        "--scheduler": "pndm" if request.scheduler == "pndm" else "dpmpp",
        "--rng": request.rng or "numpy", "--image-count": request.count,
        "--image": request.image,
        "--strength": None if request.image is None else f"{SWIFT.strength(request) or 1:g}",
        "--compute-units": "cpuAndGPU" if bundle.attention == "original" else "cpuAndNeuralEngine",
    }
    words = [str(word) for name, value in options.items() if value is not None
             for word in (name, value)]
    family = ["--sd3"] if bundle.family == "sd3" else \
        ["--xl"] if bundle.family.startswith("sdxl") else []
    prompt = ["--", request.prompt] if request.prompt.startswith("-") else [request.prompt]
    return shlex.join(["swift", "run", "StableDiffusionSample", *family, *words, *prompt])
