"""Rules of what hosts take for granted, and what the manifest of a bundle knows better.

A bundle without a manifest breaks none of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sdbuild.bundle.bundle_reader import REFINER, SD, SD3, SDXL, Opened
from sdbuild.bundle.hosts import SWIFT_SCHEDULE
from sdbuild.bundle.rules.rule import (
    ERROR,
    SWIFT,
    TWO_ENCODERS,
    UNETS,
    WARNING,
    Finding,
    rule,
)

SCALES = {SD: 0.18215, SDXL: 0.13025, REFINER: 0.13025, SD3: 1.5305}
"""The scaling factors that callers hard-code for each family. Source: the package's command
line."""


@rule(WARNING, SWIFT, "uses the output as noise: black or poor images (its issue 81).",
      families=UNETS)
def predicts_noise(bundle: Opened) -> Iterator[Finding]:
    """The U-Net gives noise, `epsilon`; one that does not was asked for by `prediction`."""
    yield from _manifest(bundle, "prediction_type", "epsilon")


@rule(ERROR, SWIFT, "has one schedule of noise built in, and removes too much or too little.",
      families=UNETS)
def schedule_is_the_built_in_one(bundle: Opened) -> Iterator[Finding]:
    """The checkpoint was trained on Stable Diffusion's schedule of noise."""
    scheduler = bundle.manifest.get("scheduler")
    for name, expected in SWIFT_SCHEDULE.items():
        found = scheduler.get(name, expected) if isinstance(scheduler, dict) else expected
        if found != expected:
            yield Finding(f"manifest.json scheduler.{name}", repr(found), repr(expected))


@rule(WARNING, SWIFT, "shifts them by 3 unless the app sets another shift, so the picture differs "
      "from that of diffusers.", families=(SD3,))
def steps_are_shifted_by_three(bundle: Opened) -> Iterator[Finding]:
    """The steps of SD 3 are shifted by 3, whatever the size of the picture."""
    scheduler = bundle.manifest.get("scheduler")
    for name, expected in (("shift", 3), ("use_dynamic_shifting", False)):
        found = scheduler.get(name, expected) if isinstance(scheduler, dict) else expected
        if found != expected:
            yield Finding(f"manifest.json scheduler.{name}", repr(found), repr(expected))


@rule(WARNING, SWIFT, "divides latents by 0.18215 unless its caller says otherwise, and callers "
      "know the family's factor alone: wrong colours.")
def scale_factor_is_the_familys(bundle: Opened) -> Iterator[Finding]:
    """Latents are scaled by 0.18215, by 0.13025 for SDXL, by 1.5305 for SD 3."""
    yield from _manifest(bundle, "scale_factor", SCALES[bundle.family])


@rule(WARNING, SWIFT, "pads with the end token (49407), so prompts mean something slightly else.")
def prompts_are_padded_with_the_end_token(bundle: Opened) -> Iterator[Finding]:
    """The checkpoint's tokenizer pads with `<|endoftext|>`; that of Stable Diffusion 2 with `!`."""
    yield from _manifest(bundle, "pad_token", "<|endoftext|>")


@rule(ERROR, SWIFT, "feeds a batch of one if guidance is below 1, which a batch of two refuses.",
      families=(SD,), by_recipe=True)
def low_guidance_has_a_batch_of_one(bundle: Opened) -> Iterator[Finding]:
    """A bundle whose settings have guidance below 1 has a U-Net of batch one."""
    guidance = setting(bundle, "guidance", 1)
    for model in bundle.unet[:1]:
        sample = model.inputs.get("sample")
        if guidance < 1 and sample is not None and sample.shape[:1] != (1,):
            yield Finding(f"{model.file} sample", str(sample.shape),
                          f"a batch of one for guidance={guidance}")


@rule(ERROR, SWIFT, "reads past the noise of the first picture, and crashes.", families=(SD,),
      by_recipe=True)
def a_batch_of_one_draws_one_picture(bundle: Opened) -> Iterator[Finding]:
    """A bundle whose U-Net has a batch of one has settings for one picture, at guidance from 1."""
    count = setting(bundle, "count", 1)
    for model in bundle.unet[:1]:
        sample = model.inputs.get("sample")
        if (count > 1 and setting(bundle, "guidance", 1) >= 1
                and sample is not None and sample.shape[:1] == (1,)):
            yield Finding(f"{model.file} sample", f"a batch of one for count={count}",
                          "a batch of two")


@rule(ERROR, SWIFT, "mixes towards the negative prompt below 1, and ignores the prompt at 0; 1 "
      "is the prompt alone.", families=TWO_ENCODERS, by_recipe=True)
def guidance_is_at_least_one(bundle: Opened) -> Iterator[Finding]:
    """The settings of a bundle of SDXL or SD 3 have guidance of 1 or more."""
    guidance = setting(bundle, "guidance", 1)
    if guidance < 1:
        yield Finding("manifest.json draw.guidance", str(guidance), "1 or more")


@rule(ERROR, SWIFT, "crashes with PNDM, its default, with the spacing of Karras, and with SD 3's "
      "scheduler: all need two.", by_recipe=True)
def one_step_has_a_scheduler_for_it(bundle: Opened) -> Iterator[Finding]:
    """A bundle whose settings have one step has `dpm` alone, and is not of SD 3."""
    draw = _draw(bundle)
    scheduler = str(draw.get("scheduler", ""))
    is_karras = draw.get("karras") is True or scheduler.endswith("_karras")
    if setting(bundle, "steps", 2) == 1 and (
            scheduler == "pndm" or is_karras or bundle.family == SD3):
        yield Finding("manifest.json draw.steps", "1", "at least 2, or scheduler=dpm")


@rule(ERROR, SWIFT, "hands over after 80 % of the steps rounded down: the base model never runs.",
      families=(SDXL,), by_recipe=True)
def a_refiner_leaves_a_step_for_the_base(bundle: Opened) -> Iterator[Finding]:
    """The settings of a bundle with a refiner have two steps or more."""
    if bundle.denoiser("UnetRefiner") and setting(bundle, "steps", 2) == 1:
        yield Finding("manifest.json draw.steps", "1", "at least 2 beside a refiner")


def _draw(bundle: Opened) -> Mapping[str, Any]:
    """Returns the recommended settings of images, empty if there are none."""
    draw = bundle.manifest.get("draw")
    return draw if isinstance(draw, dict) else {}


def setting(bundle: Opened, name: str, default: float) -> float:
    """Returns a number among the recommended settings of images."""
    found = _draw(bundle).get(name)
    return found if isinstance(found, int | float) else default


def _manifest(bundle: Opened, field: str, expected: object) -> Iterator[Finding]:
    found = bundle.manifest.get(field, expected)
    if found != expected:
        yield Finding(f"manifest.json {field}", repr(found), repr(expected))


SETTINGS = (
    predicts_noise,
    schedule_is_the_built_in_one,
    steps_are_shifted_by_three,
    scale_factor_is_the_familys,
    prompts_are_padded_with_the_end_token,
    low_guidance_has_a_batch_of_one,
    a_batch_of_one_draws_one_picture,
    guidance_is_at_least_one,
    one_step_has_a_scheduler_for_it,
    a_refiner_leaves_a_step_for_the_base,
)
