"""Packages read, palettized, chunked and compiled, against coremltools: ratios in a table.

    python -m benchmarks.mil [--full] [--only NAME,…] [--workers N] [--work DIR]

Both sides work on the same package, an fp16 U-Net with random weights of about 50 million
parameters, or with `--full` of the shapes of Stable Diffusion 2.1. Each runs in a process of its
own, one after the other; what is timed leaves the imports out. Memory is the peak of anonymous
pages, Linux only. `--work` keeps the packages for another run.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import alone, sampled_memory, work_folder
from benchmarks.unet import FULL, SLIM, package

Side = Callable[[Path, Path, int], Callable[[], object]]
"""Of package, folder and workers: imports what it needs, and gives what is to be timed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """The same work by us and by coremltools."""

    ours: Side
    theirs: Side
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of one side, its child processes included in `cpu_s`."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the package if it is not there, measures, and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mil")
    parser.add_argument("--full", action="store_true", help="the U-Net of Stable Diffusion 2.1")
    parser.add_argument("--only", help=f"of {','.join(BENCHMARKS)}")
    parser.add_argument("--workers", type=int, default=1, help="of both sides, where they have any")
    parser.add_argument("--work", type=Path, help="a folder for the packages")
    given = parser.parse_args(arguments)
    names = given.only.split(",") if given.only else list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    print(HEAD, flush=True)
    with work_folder(given.work) as work:
        source = package(work / ("full" if given.full else "slim"), FULL if given.full else SLIM)
        for name in names:
            benchmark = BENCHMARKS[name]
            ours, theirs = (costs(side, source, given.workers, work)
                            for side in (benchmark.ours, benchmark.theirs))
            print(_row(f"{name}: {benchmark.what}", ours, theirs), flush=True)
    return 0


# our side


def _our_read(source: Path, folder: Path, workers: int) -> Callable[[], object]:
    from sdbuild.mil.files.package import read_package

    return lambda: read_package(source)


@dataclass(frozen=True, slots=True)
class _OurPalettes:
    bits: int

    def __call__(self, source: Path, folder: Path, workers: int) -> Callable[[], object]:
        from sdbuild.mil.compress.palettize import palettize

        target = folder / "Unet.mlpackage"
        return lambda: palettize(source, target, nbits=self.bits, workers=workers)


def _our_chunks(source: Path, folder: Path, workers: int) -> Callable[[], object]:
    from sdbuild.mil.edit.chunk import chunk

    return lambda: chunk(source, [folder / f"chunk{n}.mlpackage" for n in (1, 2)])


def _our_compile(source: Path, folder: Path, workers: int) -> Callable[[], object]:
    from sdbuild.mil.compile.compile import compile_package

    return lambda: compile_package(source, folder / "Unet.mlmodelc")


def _our_change(source: Path, folder: Path, workers: int) -> Callable[[], object]:
    palettized = _OurPalettes(4)(source, folder, workers)
    chunked = _our_chunks(folder / "Unet.mlpackage", folder, workers)
    return lambda: (palettized(), chunked())


# coremltools' side


def _their_read(source: Path, folder: Path, workers: int) -> Callable[[], object]:
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto.load import load

    def run() -> object:
        model = ct.models.MLModel(str(source), skip_model_load=True)
        spec = model.get_spec()
        return load(spec, spec.specificationVersion, model.weights_dir)

    return run


@dataclass(frozen=True, slots=True)
class _TheirPalettes:
    bits: int

    def __call__(self, source: Path, folder: Path, workers: int) -> Callable[[], object]:
        import coremltools as ct
        from coremltools.optimize import coreml as cto

        kind = cto.OpPalettizerConfig(mode="kmeans", nbits=self.bits, num_kmeans_workers=workers)
        config = cto.OptimizationConfig(global_config=kind)

        def run() -> None:
            model = ct.models.MLModel(str(source), skip_model_load=True)
            cto.palettize_weights(model, config).save(str(folder / "Unet.mlpackage"))

        return run


def _their_chunks(source: Path, folder: Path, workers: int) -> Callable[[], object]:
    from coremltools.models.utils import bisect_model

    return lambda: bisect_model(str(source), str(folder), check_output_correctness=False)


def _copied_text(source: Path, folder: Path, workers: int) -> Callable[[], object]:
    """Returns the least that a printer does: reads the package's program and writes a text as
    long."""
    from sdbuild.mil.compile.compile import compile_package

    compile_package(source, folder / "Unet.mlmodelc")
    (folder / "copy").mkdir()

    def run() -> None:
        for file in source.glob("Data/*/*.mlmodel"):
            file.read_bytes()
        for file in (folder / "Unet.mlmodelc").glob("*.*"):
            shutil.copyfile(file, folder / "copy" / file.name)

    return run


def _their_change(source: Path, folder: Path, workers: int) -> Callable[[], object]:
    palettized = _TheirPalettes(4)(source, folder, workers)
    chunked = _their_chunks(folder / "Unet.mlpackage", folder, workers)
    return lambda: (palettized(), chunked())


BENCHMARKS = {
    "read": Benchmark(ours=_our_read, theirs=_their_read, what="package to program"),
    "palettize6": Benchmark(ours=_OurPalettes(6), theirs=_TheirPalettes(6), what="k-means, 6 bits"),
    "palettize4": Benchmark(ours=_OurPalettes(4), theirs=_TheirPalettes(4), what="k-means, 4 bits"),
    "chunk": Benchmark(ours=_our_chunks, theirs=_their_chunks, what="two chunks of fp16"),
    "change": Benchmark(ours=_our_change, theirs=_their_change,
                        what="a chunked 6-bit model made a 4-bit one, from fp16"),
    "compile": Benchmark(ours=_our_compile, theirs=_copied_text,
                         what="against copying the text"),
}


# measuring


def costs(side: Side, source: Path, workers: int, work: Path) -> Cost:
    """Returns the cost of a side in a fresh process; its output, in `work`, is deleted."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        return alone(_measured, side, source, Path(folder), workers)


def _measured(side: Side, source: Path, folder: Path, workers: int) -> Cost:
    run = side(source, folder, workers)
    cpu_s, start = _cpu_s(), time.perf_counter()
    with sampled_memory() as peak:
        run()
        wall_s = time.perf_counter() - start
    return Cost(wall_s=wall_s, cpu_s=_cpu_s() - cpu_s, peak_bytes=peak[0])


def _cpu_s() -> float:
    """The seconds of processor time of this process and of its children that have ended."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


# printing

HEAD = """\
| benchmark | time | coremltools | ratio | CPU ratio | memory | coremltools | ratio |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


def _row(name: str, ours: Cost, theirs: Cost) -> str:
    cells = [
        name, f"{ours.wall_s:.2f} s", f"{theirs.wall_s:.2f} s",
        f"{ours.wall_s / theirs.wall_s:.2f}", f"{ours.cpu_s / max(theirs.cpu_s, 1e-3):.2f}",
        f"{ours.peak_bytes / 1e9:.2f} GB", f"{theirs.peak_bytes / 1e9:.2f} GB",
        f"{ours.peak_bytes / theirs.peak_bytes:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
