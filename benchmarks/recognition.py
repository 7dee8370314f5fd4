"""Are the pictures of a bundle recognised as often as those of plain diffusers?

    python -m benchmarks.recognition [--sheet FILE.png] [--concepts N] [--least DB] VARIANT …

A variant is a word of `name=value`s with commas between them, as for doit; without any, the
6-bit chunked bundle, the fp16 one, the first with `split_einsum`, and one of 3 bits on average.
Every concept is drawn once, on the six backgrounds in turn, with the same seed by diffusers' own
pipeline in fp32 and by each bundle on the portable executor. With `--least`, pictures of a bundle
that are further from diffusers', or show another concept, end it with status 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks.judge import Judge, Verdict
from sdbuild.bundle.install import install
from sdbuild.bundle.manifest import load_bundle
from sdbuild.bundle.request import Request
from sdbuild.bundle.schedulers import parts
from sdbuild.engine.build import Builder
from sdbuild.engine.plan import plan
from sdbuild.recipe.project import BUILT_IN
from sdbuild.recipe.recipe import Recipe
from sdbuild.recipe.settings import settings
from sdbuild.runtime.generate import contact_sheet
from sdbuild.runtime.pipeline import Pipeline
from sdbuild.store import Store

DEFAULT_VARIANTS = (
    "quant=6,chunk=2", "quant=none,chunk=1", "quant=6,chunk=2,attention=split_einsum", "quant=3.0",
)
Draw = Callable[[Request], Image.Image]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A picture to draw, and what it should show."""

    concept: str
    background: str
    request: Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Scores of a set of pictures; `psnr_db` is against diffusers' pictures."""

    name: str
    concepts: float
    backgrounds: float
    explained: float
    psnr_db: float | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws, judges and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recognition")
    parser.add_argument("variants", nargs="*", default=list(DEFAULT_VARIANTS))
    parser.add_argument("--sheet", help="a contact sheet of the first variant's pictures")
    parser.add_argument("--concepts", type=int, help="only the first N")
    parser.add_argument("--least", type=float, metavar="DB", help="the least PSNR to diffusers")
    options = parser.parse_args(arguments)
    judge = Judge()
    recipe = settings({}).recipe
    wanted = cases(judge, recipe.draw)[:options.concepts]
    draw = diffusers_draw(recipe)
    original = [draw(case.request) for case in tqdm(wanted, "diffusers")]
    scores = [score("diffusers, fp32", judge, wanted, original, None)]
    for number, variant in enumerate(options.variants):
        draw = bundle_draw(variant)
        images = [draw(case.request) for case in tqdm(wanted, variant)]
        scores.append(score(variant, judge, wanted, images, original))
        if options.sheet and number == 0:
            contact_sheet(images, columns=8).save(options.sheet, optimize=True)
    print(table(scores, len(wanted)))
    return 0 if options.least is None else int(not all_draw(scores[1:], options.least))


def cases(judge: Judge, draw: Request) -> list[Case]:
    """Every concept on the backgrounds in turn; the seed is its number."""
    found = json.loads((BUILT_IN / "tiny-emoji" / "concepts.json").read_text("utf-8"))
    return [
        Case(
            concept=entry["name"], background=background,
            request=replace(draw, prompt=f"{entry['prompt']} on a {background} background",
                            seed=number),
        )
        for number, entry in enumerate(found)
        if (background := judge.backgrounds[number % len(judge.backgrounds)])
    ]


def diffusers_draw(recipe: Recipe) -> Draw:
    """Draws with diffusers' own pipeline, in fp32."""
    import diffusers
    import torch

    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        recipe.sources.checkpoint.places[0], torch_dtype=torch.float32
    )
    scheduler, _ = parts(recipe.draw.scheduler)
    pipeline.scheduler = getattr(diffusers, scheduler.kind).from_config(
        pipeline.scheduler.config, **scheduler.config)
    pipeline.set_progress_bar_config(disable=True)

    def draw(request: Request) -> Image.Image:
        return pipeline(
            request.prompt, num_inference_steps=request.steps, guidance_scale=request.guidance,
            height=recipe.network.height_px, width=recipe.network.width_px,
            generator=torch.Generator().manual_seed(request.seed),
        ).images[0]
    return draw


def bundle_draw(variant: str) -> Draw:
    """Draws from the bundle of a variant, after building it."""
    words = dict(word.split("=", 1) for word in variant.split(","))
    found = settings(words)
    builder = Builder(plan(found.recipe), Store(found.cache))
    install(builder.make_all("bundle"), builder.store, found.bundle)
    pipeline = Pipeline(load_bundle(found.bundle), "portable")
    return lambda request: next(iter(pipeline.draw(request))).image


def score(
    name: str, judge: Judge, wanted: Sequence[Case], images: Sequence[Image.Image],
    original: Sequence[Image.Image] | None,
) -> Score:
    """The shares of right concepts and backgrounds, and how near the pictures are."""
    verdicts: list[Verdict] = [judge(image) for image in images]
    pairs = list(zip(wanted, verdicts, strict=True))
    return Score(
        name=name,
        concepts=float(np.mean([case.concept == v.concept for case, v in pairs])),
        backgrounds=float(np.mean([case.background == v.background for case, v in pairs])),
        explained=float(np.mean([v.explained for v in verdicts])),
        psnr_db=None if original is None else psnr(images, original),
    )


def all_draw(scores: Sequence[Score], least_db: float) -> bool:
    """Whether every bundle draws what was asked for, and as near to diffusers as this."""
    return all(s.concepts == 1 and s.psnr_db is not None and s.psnr_db >= least_db for s in scores)


def psnr(images: Sequence[Image.Image], original: Sequence[Image.Image]) -> float:
    """PSNR in dB over all pixels of all pictures, of 255."""
    errors = [
        np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2)
        for a, b in zip(images, original, strict=True)
    ]
    return float(20 * np.log10(255) - 10 * np.log10(np.mean(errors)))


def table(scores: Sequence[Score], count: int) -> str:
    """The scores as Markdown."""
    lines = [
        f"| pictures of {count} concepts | concept | background | explained | PSNR to diffusers |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for s in scores:
        near = "" if s.psnr_db is None else f"{s.psnr_db:.1f} dB"
        lines.append(
            f"| {s.name} | {s.concepts:.1%} | {s.backgrounds:.1%} | {s.explained:.3f} | {near} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
