"""Measures what bits of its own for each weight cost at full scale, beside plain palettes.

    python -m benchmarks.calibration [--model sd-1-5] [--limit 4G] [--prompts N] [--steps N]
                                     [--work FOLDER]

The U-Net has the real architecture and random weights. A calibration takes as long as it has
prompts, so few are enough to tell the time of one step of an image and of one gradient pass. Memory
is the peak of anonymous memory. With `--limit` everything runs in a control group that may hold so
much memory, file cache included (Linux, as root, control groups of version 1).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.checkpoints import CONFIGS, family_of, write_checkpoint
from benchmarks.full_scale import limited
from benchmarks.measure import work_folder
from sdbuild.base.progress import Progress
from sdbuild.base.units import size
from sdbuild.engine.build import Builder
from sdbuild.engine.plan import plan
from sdbuild.engine.process import Watch
from sdbuild.recipe.recipe import load
from sdbuild.store import Record, Store

HEAD = "| what | wall s | peak memory | of plain palettes |\n| --- | ---: | ---: | ---: |"
_RECIPE = """family = "{family}"
source = "{source}"
size = {side}
components = ["text_encoder", "unet"]
palettize = ["unet"]
calibrate = "{prompts}"
chunk = 1

[draw]
prompt = "a fox"
steps = {steps}
"""
_PLAIN = "palettize:unet"


@dataclass(slots=True)
class Clock:
    """The times at which a step reported each number of each unit first."""

    at: dict[tuple[str, int], float] = field(default_factory=dict)

    @contextmanager
    def watching(self, step: str, seconds: float | None) -> Iterator[Watch]:
        """Begins again with the start of a step."""
        self.at = {("start", 0): time.monotonic()}
        yield self._see
        self.at["end", 0] = time.monotonic()

    def _see(self, progress: Progress | None, held: int) -> None:
        if progress is not None:
            self.at.setdefault((progress.unit, progress.done), time.monotonic())

    def until(self, unit: str) -> float:
        """Returns the seconds from the start to the first of a unit, or to the end."""
        return min(at for (of, _), at in self.at.items() if of == unit) - self.at["start", 0]


class Bench:
    """A separate store, and a checkpoint in the same folder."""

    def __init__(self, model: str, work: Path, prompts: int, steps: int) -> None:
        checkpoint, self._recipe = work / "checkpoint1", work / f"{model}.toml"
        if not checkpoint.exists():
            write_checkpoint(model, checkpoint, seed=1)
        given = work / "prompts.txt"
        given.write_text("".join(f"a fox with {n} apples\n" for n in range(prompts)), "utf-8")
        self._recipe.write_text(_RECIPE.format(
            family=family_of(model).name, source=checkpoint, prompts=given, steps=steps,
            side=8 * CONFIGS[model]["unet"]["sample_size"]), "utf-8")
        self._store, self.clock = Store(work / "cache"), Clock()

    def make(self, target: str, words: Mapping[str, str]) -> Record:
        """Makes a step and all that it needs."""
        builder = Builder(plan(load({"model": str(self._recipe), **words})), self._store)
        builder.watches = self.clock.watching
        return builder.make_all(target)


def measure(bench: Bench, prompts: int, steps: int) -> None:
    """Prints a row for each step, and for what they add up to."""
    bench.make("convert:unet", {"quant": "4"})
    plain = bench.make(_PLAIN, {"quant": "4"}).seconds

    def row(what: str, seconds: float, peak_bytes: int | None = None) -> None:
        held = "" if peak_bytes is None else size(peak_bytes)
        print(f"| {what} | {seconds:.1f} | {held} | {seconds / plain:.2f} |", flush=True)

    row("plain palettes, 4 bits", plain)
    calibration = bench.make("calibrate:unet", {"quant": "4.0"})
    clock, moments = bench.clock, calibration.facts["moments"]
    images, passes, sums = map(clock.until, ("images", "passes", "tensors"))
    row("calibrate", calibration.seconds, calibration.peak_bytes)
    row("… a step of an image", (passes - images) / (prompts * steps))
    row("… a gradient pass", (sums - passes) / moments)
    row("… all else", calibration.seconds - (sums - images))
    total = calibration.seconds - (sums - images)
    for words in ({"quant": "4.0"}, {"quant": "3.0"}):
        for kind in ("rate", "allocate", "assign"):
            record = bench.make(f"{kind}:unet", words)
            if kind != "rate" or total:
                row(f"{kind}, {words['quant']} bits", record.seconds, record.peak_bytes)
                total += record.seconds
        row(f"all but steps of images and gradient passes, {words['quant']} bits", total)
        total = 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration")
    parser.add_argument("--model", default="sd-2-1-base")
    parser.add_argument("--limit", default="", help="such as 4G")
    parser.add_argument("--prompts", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4, help="of an image")
    parser.add_argument("--work", type=Path, help="kept, so that checkpoints are written once")
    options = parser.parse_args(arguments)
    with work_folder(options.work) as work:
        bench = Bench(options.model, work, options.prompts, options.steps)
        print(HEAD, flush=True)
        with limited(options.limit):
            measure(bench, options.prompts, options.steps)
    return 0


if __name__ == "__main__":
    sys.exit(main())
