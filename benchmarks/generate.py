"""`sdbuild generate` against diffusers' eager pipeline in fp32: one image, start included.

    python -m benchmarks.generate BUNDLE CHECKPOINT [--steps N] [--rounds R] [--threads T]

BUNDLE is the fp16 bundle of CHECKPOINT, a folder in diffusers' layout; without both, the built-in
model's, which are built first. Each image is a process of its own, from its start to the written
file, and both take turns. Times are the least of the rounds, by the clock and of the processor;
the latter a busy machine disturbs less (with one thread: waiting ones spin).
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import work_folder
from sdbuild.recipe.project import BUILT_IN

_PROMPT = "a red apple on a blue background"
_THEIRS = """
import sys
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
folder, prompt, steps, out = sys.argv[1:]
pipeline = StableDiffusionPipeline.from_pretrained(
    folder, safety_checker=None, torch_dtype=torch.float32)
pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
unet = pipeline.unet.config.sample_size * 8
pipeline(prompt, num_inference_steps=int(steps), guidance_scale=5.0, width=unet, height=unet,
         generator=torch.Generator().manual_seed(1)).images[0].save(out)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The time of a process, in seconds."""

    clock_s: float
    processor_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Generates with both by turns, and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generate")
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("checkpoint", type=Path, nargs="?", default=BUILT_IN / "tiny-emoji")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    with work_folder(None) as work:
        bundle = given.bundle or _built(work)
        commands = {
            "diffusers": [sys.executable, "-c", _THEIRS, str(given.checkpoint), _PROMPT,
                          str(given.steps), str(work / "theirs.png")],
            "sdbuild": [sys.executable, "-m", "sdbuild", "generate", str(bundle),
                        f"prompt={_PROMPT}", f"steps={given.steps}", "scheduler=dpm", "guidance=5",
                        "seed=1", "predictor=portable", f"out={work / 'ours.png'}"],
        }
        costs: dict[str, list[Cost]] = {name: [] for name in commands}
        for _ in range(given.rounds):
            for name, command in commands.items():
                costs[name].append(_cost(command, given.threads))
        _print(costs)
    return 0


def _built(work: Path) -> Path:
    bundle = work / "bundle"
    subprocess.run([sys.executable, "-m", "sdbuild", "build", "model=tiny-emoji", "quant=none",
                    "chunk=1", f"cache={work / 'cache'}", f"bundle={bundle}"], check=True)
    return bundle


def _cost(command: Sequence[str], threads: int) -> Cost:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, env=environment, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(
        clock_s=time.monotonic() - started,
        processor_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _print(costs: dict[str, list[Cost]]) -> None:
    least = {name: Cost(clock_s=min(cost.clock_s for cost in found),
                        processor_s=min(cost.processor_s for cost in found))
             for name, found in costs.items()}
    theirs = least["diffusers"]
    print(f"{'':<12}{'clock':>9}{'ratio':>8}{'processor':>11}{'ratio':>8}")
    for name, cost in least.items():
        print(f"{name:<12}{cost.clock_s:>7.1f} s{cost.clock_s / theirs.clock_s:>7.2f}x"
              f"{cost.processor_s:>9.1f} s{cost.processor_s / theirs.processor_s:>7.2f}x")


if __name__ == "__main__":
    raise SystemExit(main())
