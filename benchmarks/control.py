"""Do the pictures of a bundle with a ControlNet follow what they are guided by?

    python -m benchmarks.control [--placements N] [--steps N] [--sheet FILE.png] [WORD …]

Draws concepts of `tiny-emoji-control` at placements of their silhouettes that it was never trained
on, none of them in the middle: with the ControlNet from the bundle, by diffusers' own pipeline in
fp32 with the same noise, and from the bundle without it. All 128 are those that the card in
`recipes/tiny-emoji-control` was measured on. A WORD is a `name=value` of the build; by default the
recipe's own 6-bit bundle. What is measured is the overlap of a picture's foreground with the
silhouette (intersection over union, holes filled), and the concept that `judge.py` sees once the
placement is undone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from benchmarks.judge import REFERENCES, Judge
from sdbuild.bundle.install import install
from sdbuild.bundle.manifest import load_bundle
from sdbuild.bundle.request import Control, Request
from sdbuild.engine.build import Builder
from sdbuild.engine.plan import plan
from sdbuild.recipe.project import BUILT_IN
from sdbuild.recipe.recipe import Recipe
from sdbuild.recipe.settings import Settings, settings
from sdbuild.runtime.generate import contact_sheet
from sdbuild.runtime.pipeline import Pipeline
from sdbuild.store import Store

NET = "TinyEmojiControl"
_SIDE_PX = 128
_TILE = 0.8
"""The share of a reference drawing's side that its icon takes."""
_LEVELS = 32
"""By how many of 255 a pixel of the foreground differs from the border's median colour."""
_SEED = 2026
_SHARES = (0.55, 0.85)
"""The least and the largest share of the picture's side that an icon's square takes."""
_LEAST_SHIFT = 5
_ALIKE = 64
"""By how many of 255 a color may differ from the background's to be taken for it."""
Draw = Callable[[Request, Image.Image], Image.Image]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The place of an icon: the side of its square and its upper left corner, in pixels."""

    side: int
    left: int
    top: int
    is_mirrored: bool

    def silhouette(self, alpha: np.ndarray) -> Image.Image:
        """Returns the icon's shape, white on black.

        Shapes:
            alpha: (64, 64), from 0 to 255.
        """
        shape = Image.fromarray(np.ascontiguousarray(alpha[:, ::-1] if self.is_mirrored else alpha))
        canvas = Image.new("L", (_SIDE_PX, _SIDE_PX))
        tile = shape.resize((self.side, self.side), Image.Resampling.BILINEAR)
        canvas.paste(tile, (self.left, self.top))
        return canvas.convert("RGB")

    def undone(self, image: Image.Image) -> Image.Image:
        """Returns a picture with its icon in the middle, at the usual size, not mirrored."""
        ground = tuple(int(value) for value in np.median(_border(np.asarray(image)), axis=0))
        wide = Image.new("RGB", (3 * _SIDE_PX, 3 * _SIDE_PX), ground)
        wide.paste(image, (_SIDE_PX, _SIDE_PX))
        half = self.side / _TILE / 2
        x, y = (_SIDE_PX + corner + self.side / 2 for corner in (self.left, self.top))
        found = wide.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BILINEAR,
                            box=(x - half, y - half, x + half, y + half))
        return found.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.is_mirrored else found


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A picture to draw, and what it should show where."""

    concept: str
    placement: Placement
    silhouette: Image.Image
    request: Request


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws, measures and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.control")
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--placements", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--sheet", help="silhouettes, with the ControlNet, without it")
    options = parser.parse_args(arguments)
    found = settings({"model": "tiny-emoji-control",
                      **dict(word.split("=", 1) for word in options.words)})
    judge, wanted = Judge(), list(cases(found.recipe, options.placements, options.steps))
    with_net, without = bundle_draws(found)
    ways = {"the bundle": with_net, "diffusers, fp32": diffusers_draw(found.recipe),
            "the bundle without it": without}
    images = {name: [draw(case.request, case.silhouette) for case in tqdm(wanted, name)]
              for name, draw in ways.items()}
    if options.sheet:
        rows = [[case.silhouette for case in wanted], images["the bundle"],
                images["the bundle without it"]]
        contact_sheet([each for row in rows for each in row], columns=len(wanted)).save(
            options.sheet, optimize=True)
    print(table(judge, wanted, images))
    return 0


def cases(recipe: Recipe, count: int, steps: int) -> Iterator[Case]:
    """Yields the concepts that the card was measured on, in an order that mixes kinds.

    Source:
        the training script of the checkpoint: its placements, backgrounds and noise.
    """
    data = np.load(REFERENCES)
    names, random = [str(name) for name in data["names"]], Random(_SEED)
    places = [_held_back(index % len(names), random) for index in range(2 * len(names))]
    for number in range(count):
        index, again = number * 37 % len(names), number // len(names)
        name, icon = names[index], data["icons"][index]
        placement = places[again * len(names) + index]
        article = "an" if name[0] in "aeiou" and name != "unicorn" else "a"
        prompt = f"{article} {name} on a {_clearest(icon, data)} background"
        yield Case(
            concept=name, placement=placement, silhouette=placement.silhouette(icon[..., 3]),
            request=replace(recipe.draw, prompt=prompt, seed=1000 * again + index, steps=steps),
        )


def _held_back(index: int, random: Random) -> Placement:
    """Returns a placement in the quadrant that the concept was not trained in."""
    while True:
        share = random.uniform(*_SHARES)
        side = round(_SIDE_PX * share)
        room = (_SIDE_PX - side) // 2
        right, down = random.randint(-room, room), random.randint(-room, room)
        is_mirrored = random.random() < 0.5
        quadrant = (right > 0) + 2 * (down > 0)
        if quadrant == index % 4 and min(abs(right), abs(down)) >= _LEAST_SHIFT:
            return Placement(side=side, left=room + right, top=room + down,
                             is_mirrored=is_mirrored)


def _clearest(icon: np.ndarray, data: Mapping[str, np.ndarray]) -> str:
    """Returns the background that the fewest of an icon's pixels resemble.

    Shapes:
        icon: (64, 64, 4), from 0 to 255.
    """
    colors = icon[icon[..., 3] > 128][:, :3].astype(int)
    alike = [(np.abs(colors - ground).max(1) < _ALIKE).mean()
             for ground in data["background_rgb"].astype(int)]
    return str(data["background_names"][int(np.argmin(alike))])


def bundle_draws(found: Settings) -> tuple[Draw, Draw]:
    """Draws from the bundle, after building it: with its ControlNet, and without."""
    builder = Builder(plan(found.recipe), Store(found.cache))
    install(builder.make_all("bundle"), builder.store, found.bundle)
    pipeline = Pipeline(load_bundle(found.bundle), "portable")

    def guided(request: Request, silhouette: Image.Image) -> Image.Image:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "silhouette.png")
            silhouette.save(path)
            control = (Control(NET, str(path), 1.0),)
            return next(pipeline.draw(replace(request, control=control))).image
    return guided, lambda request, _: next(pipeline.draw(request)).image


def diffusers_draw(recipe: Recipe) -> Draw:
    """Draws with diffusers' own pipeline, in fp32."""
    import diffusers
    import torch

    net = diffusers.ControlNetModel.from_pretrained(BUILT_IN / "tiny-emoji-control")
    pipeline = diffusers.StableDiffusionControlNetPipeline.from_pretrained(
        recipe.sources.checkpoint.places[0], controlnet=net, safety_checker=None)
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(torch.float32)

    def draw(request: Request, silhouette: Image.Image) -> Image.Image:
        return pipeline(
            request.prompt, image=silhouette, num_inference_steps=request.steps,
            guidance_scale=request.guidance, height=_SIDE_PX, width=_SIDE_PX,
            generator=torch.Generator().manual_seed(request.seed),
        ).images[0]
    return draw


def overlap(image: Image.Image, silhouette: Image.Image) -> float:
    """Returns the intersection over the union of a picture's foreground and a silhouette."""
    pixels = np.asarray(image, np.float32)
    found = _filled(np.abs(pixels - np.median(_border(pixels), axis=0)).max(2) > _LEVELS)
    wanted = _filled(np.asarray(silhouette)[..., 0] > 127)
    return float((found & wanted).sum() / max((found | wanted).sum(), 1))


def _border(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


def _filled(mask: np.ndarray) -> np.ndarray:
    """Returns the mask with its enclosed holes."""
    outside = Image.fromarray(np.pad(mask, 1).astype(np.uint8) * 255).copy()
    ImageDraw.floodfill(outside, (0, 0), 128)
    return np.asarray(outside)[1:-1, 1:-1] != 128


def table(
    judge: Judge, wanted: Sequence[Case], images: dict[str, list[Image.Image]]
) -> str:
    """The measures as Markdown."""
    lines = [f"| {len(wanted)} placements | IoU, mean | median | ≥ 0.8 | concept |",
             "| --- | ---: | ---: | ---: | ---: |"]
    for name, drawn in images.items():
        pairs = list(zip(wanted, drawn, strict=True))
        shares = np.array([overlap(image, case.silhouette) for case, image in pairs])
        seen = sum(judge(case.placement.undone(image)).concept == case.concept
                   for case, image in pairs)
        lines.append(f"| {name} | {shares.mean():.3f} | {np.median(shares):.3f} | "
                     f"{(shares >= 0.8).mean():.0%} | {seen} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
