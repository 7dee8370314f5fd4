"""Rules of what hosts take for granted, and what the manifest of a bundle knows better.

A bundle without a manifest breaks none of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdbuild.bundle.bundle_reader import Opened
from sdbuild.bundle.rules.rule import ERROR, SWIFT, WARNING, Finding, rule

_SCHEDULE = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "trained_betas": None, "rescale_betas_zero_snr": False,
}
"""Source: apple/ml-stable-diffusion at e12202c, the Swift pipeline and its schedulers."""


@rule(WARNING, SWIFT, "uses the output as noise: black or poor images (its issue 81).")
def predicts_noise(bundle: Opened) -> Iterator[Finding]:
    """The U-Net gives noise, `epsilon`; one that does not was asked for by `prediction`."""
    yield from _manifest(bundle, "prediction_type", "epsilon")


@rule(ERROR, SWIFT, "has one schedule of noise built in, and removes too much or too little.")
def schedule_is_the_built_in_one(bundle: Opened) -> Iterator[Finding]:
    """The checkpoint was trained on Stable Diffusion's schedule of noise."""
    scheduler = bundle.manifest.get("scheduler")
    for name, expected in _SCHEDULE.items():
        found = scheduler.get(name, expected) if isinstance(scheduler, dict) else expected
        if found != expected:
            yield Finding(f"manifest.json scheduler.{name}", repr(found), repr(expected))


@rule(WARNING, SWIFT, "divides latents by 0.18215 unless its caller says otherwise: wrong colours.")
def scale_factor_is_the_default(bundle: Opened) -> Iterator[Finding]:
    """Latents are scaled by 0.18215."""
    yield from _manifest(bundle, "scale_factor", 0.18215)


@rule(WARNING, SWIFT, "pads with the end token (49407), so prompts mean something slightly else.")
def prompts_are_padded_with_the_end_token(bundle: Opened) -> Iterator[Finding]:
    """The checkpoint's tokenizer pads with `<|endoftext|>`; that of Stable Diffusion 2 with `!`."""
    yield from _manifest(bundle, "pad_token", "<|endoftext|>")


@rule(WARNING, SWIFT, "feeds a batch of one if guidance is below 1, which a batch of two refuses.")
def low_guidance_has_a_batch_of_one(bundle: Opened) -> Iterator[Finding]:
    """A bundle that draws best with guidance below 1 has a U-Net of batch one."""
    draw = bundle.manifest.get("draw")
    guidance = draw.get("guidance") if isinstance(draw, dict) else None
    for model in bundle.unet[:1]:
        sample = model.inputs.get("sample")
        is_low = isinstance(guidance, int | float) and guidance < 1
        if is_low and sample is not None and sample.shape[:1] != (1,):
            yield Finding(f"{model.file} sample", str(sample.shape),
                          f"a batch of one for guidance={guidance}")


def _manifest(bundle: Opened, field: str, expected: object) -> Iterator[Finding]:
    found = bundle.manifest.get(field, expected)
    if found != expected:
        yield Finding(f"manifest.json {field}", repr(found), repr(expected))


SETTINGS = (
    predicts_noise,
    schedule_is_the_built_in_one,
    scale_factor_is_the_default,
    prompts_are_padded_with_the_end_token,
    low_guidance_has_a_batch_of_one,
)
