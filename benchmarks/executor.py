"""The portable executor against eager PyTorch in fp32: one U-Net step, as ratios.

    python -m benchmarks.executor [--full] [--latents N] [--bits B …] [--rounds R] [--threads T]
                                  [--ceiling BYTES] [--work DIR]

The network is diffusers' UNet2DConditionModel with random weights: a slim one of two levels, or
with `--full` that of Stable Diffusion 2.1. Our own steps trace, convert and palettize it. Times
are the least of some rounds in which both take turns in one process: by the clock, and of the
processor, which a busy machine disturbs less (with one thread: waiting ones spin). Memory is the
peak of anonymous pages of a process of its own, Linux only. `--work` keeps the packages for
another run.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measure import alone, sampled_memory, work_folder
from benchmarks.unet import FULL, convert, make_step, write_checkpoint
from sdbuild.families import FAMILIES

SLIM = {
    "sample_size": 64, "in_channels": 4, "out_channels": 4, "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10], "use_linear_projection": True, "layers_per_block": 1,
    "block_out_channels": [320, 640],
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
"""Two levels as wide as the first two of `FULL`, so that the kernels see the same sizes."""

UNET = FAMILIES["sd"].component("unet")
Run = Callable[[], np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The costs of one form of the network, as ratios to eager PyTorch; `psnr_db` is against it."""

    name: str
    seconds: float
    seconds_ratio: float
    processor_ratio: float
    peak_bytes: int
    memory_ratio: float
    psnr_db: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes what is not there yet, measures, and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.executor")
    parser.add_argument("--full", action="store_true", help="the U-Net of Stable Diffusion 2.1")
    parser.add_argument("--latents", type=int, default=32, help="latent cells on a side")
    parser.add_argument("--bits", type=int, nargs="*", default=[], help="palettized, too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of PyTorch; its own choice if not given")
    parser.add_argument("--ceiling", type=int, help="bytes of decoded weights that are kept")
    parser.add_argument("--work", type=Path, help="a folder for the packages")
    given = parser.parse_args(arguments)
    config = FULL if given.full else SLIM
    with work_folder(given.work) as work:
        checkpoint = _made(work / "checkpoint", lambda path: write_checkpoint(path, config))
        base = _made(work / f"fp16_{given.latents}",
                     lambda path: convert(path, checkpoint, given.latents))
        packages = {"fp16": base} | {
            f"{bits} bits": _made(work / f"{bits}_{given.latents}",
                                  functools.partial(_palettized, package=base, bits=bits))
            for bits in given.bits
        }
        rows = _rows(checkpoint, packages, given)
    print(_table(rows))
    return 0


# forms to measure


def _palettized(path: Path, package: Path, bits: int) -> None:
    make_step("palettize", path, {"nbits": bits}, package=package)


def _made(path: Path, make: Callable[[Path], object]) -> Path:
    """The folder `path`, which `make` fills if that has not been done before."""
    done = path / "done"
    if not done.exists():
        path.mkdir(parents=True, exist_ok=True)
        make(path)
        done.touch()
    return path


def _samples(latents: int) -> dict[str, np.ndarray]:
    """Normal noise and embeddings.

    Shapes:
        sample: (2, 4, latents, latents); timestep: (2,); encoder_hidden_states: (2, 1024, 1, 77)
    """
    rng = np.random.default_rng(0)
    return {
        "sample": rng.standard_normal((2, 4, latents, latents), np.float32),
        "timestep": np.full(2, 501, np.float32),
        "encoder_hidden_states": rng.standard_normal((2, 1024, 1, 77), np.float32),
    }


def _eager(checkpoint: Path, latents: int) -> Run:
    """A step of the network in PyTorch."""
    import torch

    from sdbuild.checkpoints.normalized import ARCHITECTURE, WEIGHTS, read_architecture
    from sdbuild.models import network

    architecture = read_architecture(checkpoint / ARCHITECTURE, {})
    net = network.weighted(UNET, architecture, checkpoint / WEIGHTS)
    given = [torch.from_numpy(array) for array in _samples(latents).values()]

    def run() -> np.ndarray:
        with torch.inference_mode():
            return net(*given).numpy()

    return run


def _portable(package: Path, latents: int, ceiling: int | None) -> Run:
    """A step of the package in the executor."""
    from sdbuild.mil.execute.execute import Executor
    from sdbuild.mil.files.read import read_model

    executor = Executor(read_model(next(package.glob("*.mlpackage"))), weight_bytes=ceiling)
    given = _samples(latents)
    return lambda: executor.predict(given)["noise_pred"]


# measuring


def _rows(
    checkpoint: Path, packages: Mapping[str, Path], given: argparse.Namespace
) -> list[Row]:
    latents = given.latents
    eager_peak = alone(_peak_bytes, _eager, checkpoint, latents)
    rows = []
    for name, package in packages.items():
        portable = (_portable, package, latents, given.ceiling)
        race = alone(_race, ((_eager, checkpoint, latents), portable), given.rounds, given.threads)
        peak = alone(_peak_bytes, *portable)
        rows.append(Row(
            name=name, seconds=race.seconds[1], seconds_ratio=race.seconds[1] / race.seconds[0],
            processor_ratio=race.processor_s[1] / race.processor_s[0], peak_bytes=peak,
            memory_ratio=peak / eager_peak, psnr_db=race.psnr_db,
        ))
    eager = Row(name="eager fp32", seconds=race.seconds[0], seconds_ratio=1, processor_ratio=1,
                peak_bytes=eager_peak, memory_ratio=1, psnr_db=float("inf"))
    return [eager, *rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """The least seconds of each subject, and how close the last is to the first."""

    seconds: tuple[float, ...]
    processor_s: tuple[float, ...]
    psnr_db: float


def _race(subjects: Sequence[tuple], rounds: int, threads: int | None) -> Race:
    """Lets the subjects take turns.

    The first run of each is not counted: it makes what PyTorch keeps for later.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    runs = [make(*arguments) for make, *arguments in subjects]
    first, *_, last = [run() for run in runs]
    times = [[_times(run) for run in runs] for _ in range(rounds)]
    least = [[min(column) for column in zip(*of_run, strict=True)]
             for of_run in zip(*times, strict=True)]
    error = float(np.sqrt(np.mean((last.astype(np.float64) - first) ** 2)))
    return Race(
        seconds=tuple(clock for clock, _ in least),
        processor_s=tuple(processor for _, processor in least),
        psnr_db=20 * float(np.log10(np.abs(first).max() / error)),
    )


def _times(run: Run) -> tuple[float, float]:
    """The seconds of one run, by the clock and of the processor."""
    start = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def _peak_bytes(make: Callable[..., Run], *arguments: object) -> int:
    """The most anonymous memory that loading and two steps hold."""
    with sampled_memory() as peak:
        run = make(*arguments)
        run()
        run()
    return peak[0]


# printing


def _table(rows: Sequence[Row]) -> str:
    lines = ["weights     step      ratio  (processor)  anonymous  ratio  PSNR"]
    lines += [
        f"{r.name:<11} {r.seconds:6.2f} s  {r.seconds_ratio:5.2f}  {r.processor_ratio:11.2f}"
        f"  {r.peak_bytes / 2**30:5.2f} GiB  {r.memory_ratio:5.2f}  {r.psnr_db:4.1f} dB"
        for r in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
