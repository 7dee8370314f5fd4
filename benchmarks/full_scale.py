"""Measures time and memory of a real model: each way to a bundle's denoiser, at full scale.

    python -m benchmarks.full_scale [--model sd-1-5] [--limits 4GiB,2GiB] [--here]
                                    [--work FOLDER] [--direct]

The checkpoints have the real architecture and random weights. Memory is the peak of anonymous
memory over all steps; a second table has each step's, beside the memory that was reserved for it.
With `--limits` everything runs in control groups that may hold so much memory, file cache included:
the first for a checkpoint whose architecture was never seen, the second for another checkpoint of
it (Linux, as root, control groups of version 1). With `--here` no program that ships is used, as if
the architecture were a new one. With `--direct` coremltools converts the first U-Net in the same
run, finds its palettes and cuts it in two, as the alternative.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.checkpoints import CONFIGS, family_of, write_checkpoint
from benchmarks.measure import work_folder
from benchmarks.mil import BENCHMARKS, costs
from sdbuild.base.units import parse_bytes, size
from sdbuild.engine.build import Builder
from sdbuild.engine.plan import plan
from sdbuild.recipe.recipe import load
from sdbuild.store import SHIPPED, Store

_GROUPS = Path("/sys/fs/cgroup/memory")
_RECIPE = """family = "{family}"
source = "{source}"
size = {side}
components = {components}
quant = 6
chunk = 2
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing that a user does: wall seconds, peak bytes, and the steps that ran."""

    what: str
    seconds: float
    peak_bytes: int
    steps: int


class Bench:
    """A separate store, and checkpoints in the same folder.

    Attributes:
        denoiser: the component that the rows are about.
        held: the peak bytes of each step that ran, and what was reserved for it.
    """

    def __init__(self, model: str, work: Path, *, lower: str) -> None:
        self.work = work
        self.store = Store(work / "cache")
        self.recipes = {}
        self.held: list[tuple[str, int, int]] = []
        self._lower = lower
        family, configs = family_of(model), CONFIGS[model]
        self.denoiser = "transformer" if "transformer" in configs else "unet"
        parts = [c.name for c in family.components if c.folder in configs and not c.comes_with]
        for number in (1, 2):
            folder = work / f"checkpoint{number}"
            if not folder.exists():
                write_checkpoint(model, folder, seed=number)
            self.recipes[number] = work / f"{model}-{number}.toml"
            text = _RECIPE.format(family=family.name, source=folder, components=json.dumps(parts),
                                  side=8 * configs[self.denoiser]["sample_size"])
            if "controlnet" in configs:
                text += f'controlnet = "{folder / "controlnet"}"\n'
            self.recipes[number].write_text(text)

    def builder(self, checkpoint: int = 1, **words: str) -> Builder:
        """Returns the builder of a checkpoint's steps."""
        recipe = load({"model": str(self.recipes[checkpoint]), "lower": self._lower, **words})
        return Builder(plan(recipe), self.store)

    def run(self, what: str, target: str, checkpoint: int = 1, **words: str) -> Row:
        """Makes a step and all that it needs; what that took."""
        builder = self.builder(checkpoint, **words)
        reserved = {step.name: _reserved(builder, step.name)
                    for step in builder.plan.needed_by(target)}
        before = {record.key for record in self.store.records()}
        started = time.monotonic()
        builder.make_all(target)
        seconds = time.monotonic() - started
        made = [record for record in self.store.records()
                if record.key not in before and record.origin != SHIPPED]
        self.held += [(r.step, r.peak_bytes, reserved[r.step]) for r in made]
        row = Row(what=what, seconds=seconds, steps=len(made),
                  peak_bytes=max((record.peak_bytes for record in made), default=0))
        print(_line(row), flush=True)
        return row


    def copy(self, checkpoint: int) -> None:
        """Copies the denoiser's file, with all of it on the disk in the end."""
        source = next((self.work / f"checkpoint{checkpoint}" / self.denoiser).glob("*.safetensors"))
        target, started = self.work / "copy", time.monotonic()
        with source.open("rb") as read, target.open("wb") as write:
            shutil.copyfileobj(read, write, 1 << 20)
            os.fsync(write.fileno())
        row = Row(what=f"a plain copy of its {self.denoiser}, {size(source.stat().st_size)}",
                  seconds=time.monotonic() - started, steps=0, peak_bytes=0)
        target.unlink()
        print(_line(row), flush=True)


HEAD = "| what | wall s | peak memory | steps |\n| --- | ---: | ---: | ---: |"


def first(bench: Bench) -> None:
    """Prints a row for each way to the compiled chunks of the denoiser, then for the bundle."""
    chunks = f"compile:{bench.denoiser}"
    bench.run(f"the first {bench.denoiser}, to 6-bit compiled chunks", chunks)
    bench.run("again: nothing to do", chunks)
    bench.run("other bits: 6 → 4", chunks, quant="4")
    bench.run("other cut: whole", chunks, quant="4", chunk="1")
    bench.run("the rest of the first bundle", "bundle")


def another(bench: Bench) -> None:
    """Prints a row for the denoiser of another checkpoint, and for the rest of its bundle, after
    the least that they could take."""
    bench.copy(checkpoint=2)
    bench.run(f"another checkpoint's {bench.denoiser}, to 6-bit compiled chunks",
              f"compile:{bench.denoiser}", checkpoint=2)
    bench.run("the rest of its bundle", "bundle", checkpoint=2)


def by_coremltools(bench: Bench) -> None:
    """Prints a row for each of coremltools' calls that lead to the first U-Net's chunks."""
    bench.run("coremltools converts the first U-Net", "convert:unet", lower="direct")
    record = bench.builder(lower="direct").make("convert:unet")
    package = next(bench.store.checkout(record, bench.work / "direct").glob("*.mlpackage"))
    for what, name in (("finds its palettes of 6 bits, two workers", "palettize6"),
                       ("cuts it in two", "chunk")):
        cost = costs(BENCHMARKS[name].theirs, package, 2, bench.work)
        print(_line(Row(what=f"coremltools {what}", seconds=cost.wall_s, steps=0,
                        peak_bytes=cost.peak_bytes)), flush=True)


def _reserved(builder: Builder, name: str) -> int:
    """Returns the bytes that a step gets if it runs alone."""
    cost = builder.costs.expected(name)
    return min(cost.most_bytes, max(cost.least_bytes, builder.ram.limit))


def held(bench: Bench) -> str:
    """The peak of each step, and what was reserved for it, as Markdown."""
    lines = ["| step | peak memory | reserved | |", "| --- | ---: | ---: | --- |"]
    for name, peak, reserved in bench.held:
        lines.append(f"| {name} | {size(peak)} | {size(reserved)} | "
                     f"{'**broken**' if peak > reserved else ''} |")
    return "\n".join(lines)


def _line(row: Row) -> str:
    return f"| {row.what} | {row.seconds:.1f} | {size(row.peak_bytes)} | {row.steps} |"


@contextmanager
def limited(limit: str) -> Iterator[None]:
    """Runs this process and its children in a control group with so much memory, if it is given."""
    if not limit:
        yield
        return
    group = _GROUPS / f"sdbuild-{os.getpid()}"
    group.mkdir()
    home = next(line.split(":")[2] for line in Path("/proc/self/cgroup").read_text().splitlines()
                if line.split(":")[1] == "memory")
    try:
        count = parse_bytes(limit, "a limit")
        (group / "memory.limit_in_bytes").write_text(str(count))
        (group / "cgroup.procs").write_text(str(os.getpid()))
        yield
        peak = int((group / "memory.max_usage_in_bytes").read_text())
        row = f"in a control group of {limit}, file cache included"
        print(f"| {row} | | {size(peak)} | |", flush=True)
    finally:
        (_GROUPS / home.lstrip("/") / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_scale")
    parser.add_argument("--model", default="sd-2-1-base")
    parser.add_argument("--limits", default=",", help="such as 4GiB,2GiB")
    parser.add_argument("--work", type=Path, help="kept, so that checkpoints are written once")
    parser.add_argument("--here", action="store_true", help="use no program that ships")
    parser.add_argument("--direct", action="store_true")
    options = parser.parse_args(arguments)
    with work_folder(options.work) as work:
        bench = Bench(options.model, work, lower="here" if options.here else "once")
        never_seen, seen = options.limits.split(",")
        print(HEAD, flush=True)
        with limited(never_seen):
            first(bench)
        with limited(seen):
            another(bench)
        if options.direct:
            by_coremltools(bench)
        print("\n" + held(bench), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
