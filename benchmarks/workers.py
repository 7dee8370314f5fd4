"""A catalogue made by one worker, by three of which one is killed and one added, and without Dask.

    python -m benchmarks.workers [--folder FOLDER] [--kill-after N]

Two checkpoints in four variants each, for images of 512×512 pixels: U-Nets of about 50 million
parameters, one deeper than the other, text encoders and decoders, with random weights. Each worker
is a process with a store of its own, and a folder is the shared store. Tells whether all ways give
the same files, how many steps were made in several stores, and the time of processors.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.checkpoints import write_checkpoint
from benchmarks.measure import work_folder
from sdbuild.base.digest import digest_file
from sdbuild.store import Store

ROOT = Path(__file__).parents[1]
_PR_SET_CHILD_SUBREAPER = 36
MODELS = ("sd-slim", "sd-slim-deep")
MATRIX = """\
[matrix]
attention = ["original", "split_einsum"]
quant = [4, 6]
"""
RECIPE = """\
family = "sd"
source = "{source}"
size = 512
components = ["text_encoder", "unet", "vae_decoder"]
"""


class Machines:
    """A scheduler of Dask and its workers, as processes that end with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        file = folder / "address"
        self._start("scheduler", "--port", "0", "--scheduler-file", str(file), "--no-dashboard")
        wait_for(file.exists)
        self.address: str = json.loads(file.read_text())["address"]

    def __enter__(self) -> Machines:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.processes):
            self.kill(name)

    def worker(self, name: str) -> None:
        """Starts a worker with a store of its own."""
        self._start(name, self.address, "--no-nanny", "--nthreads", "1", "--name", name,
                    "--no-dashboard", "--local-directory", str(self.folder / f"{name}-dask"))

    def _start(self, name: str, *words: str) -> None:
        program = "scheduler" if name == "scheduler" else "worker"
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{program}", "--host", "127.0.0.1",
                 *words], stdout=log, stderr=log, cwd=ROOT,
                env=os.environ | {"SDBUILD_CACHE": str(self.folder / name)})

    def kill(self, name: str) -> None:
        """Ends a process at once, whatever it does."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()


def wait_for(happens: Callable[[], object]) -> None:
    """Waits until something is so."""
    while not happens():
        time.sleep(0.1)


def written(folder: Path) -> Path:
    """Writes two checkpoints, their recipes and a catalogue of them."""
    recipes = [folder / f"{model}.toml" for model in MODELS]
    for recipe in recipes:
        source = recipe.with_suffix("")
        write_checkpoint(recipe.stem, source)
        recipe.write_text(RECIPE.format(source=source))
    path = folder / "catalogue.toml"
    path.write_text(MATRIX + "".join(f'[[recipe]]\nmodel = "{recipe}"\n' for recipe in recipes))
    return path


def built(catalogue: Path, folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """Starts to build the catalogue, with what it prints in a log."""
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "sdbuild", "build", "--matrix", str(catalogue),
             f"bundle={folder / 'bundles'}", *words], stdout=log, stderr=log, cwd=catalogue.parent)


def finished(client: subprocess.Popen[bytes], folder: Path) -> None:
    """Waits for a build; if it fails, this program ends with what it printed."""
    if client.wait():
        sys.exit((folder / "log").read_text())


def files(folder: Path) -> dict[str, str]:
    """Returns the digest of each file in a folder."""
    return {str(path.relative_to(folder)): digest_file(path)
            for path in folder.rglob("*") if path.is_file()}


def made(store: Path) -> Counter[str]:
    """Returns the keys of the steps that ran in a store, each once."""
    return Counter(record.key for record in Store(store).records() if not record.origin)


def adopt_orphans() -> None:
    """Has this process be told of the end of those that a killed worker started (Linux): steps are
    forked from one of them, and their time counts."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def processor_s() -> float:
    """Returns the seconds of processors of all processes; waits for their end."""
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One way to build the catalogue, and what it took."""

    bundles: Path
    stores: Sequence[Path]
    wall_s: float
    cpu_s: float

    def steps(self) -> Counter[str]:
        """Returns how many stores each step was made in, by its key."""
        return sum(map(made, self.stores), Counter())


@contextmanager
def measured(folder: Path, stores: Sequence[str]) -> Iterator[list[Run]]:
    """A list that gets the run of what is built in `folder`."""
    folder.mkdir()
    runs: list[Run] = []
    began, before = time.monotonic(), processor_s()
    yield runs
    runs.append(Run(bundles=folder / "bundles", stores=[folder / name for name in stores],
                    wall_s=time.monotonic() - began, cpu_s=processor_s() - before))


def by_workers(folder: Path, catalogue: Path, count: int, kill_after: int | None = None) -> Run:
    """Builds on so many workers. When there are `kill_after` records, kills one and adds one."""
    names = [str(number) for number in range(count + (kill_after is not None))]
    with measured(folder, [*names, "client"]) as runs, Machines(folder) as machines:
        shared = folder / "shared"
        for name in names[:count]:
            machines.worker(name)
        client = built(catalogue, folder, "--on", machines.address, f"remote={shared}",
                       f"cache={folder / 'client'}")
        if kill_after is not None:
            wait_for(lambda: sum(1 for _ in shared.glob("records/**/*.json")) >= kill_after
                     or client.poll() is not None)
            machines.kill(names[0])
            machines.worker(names[-1])
        finished(client, folder)
    return runs[0]


def alone(folder: Path, catalogue: Path) -> Run:
    """Builds without Dask."""
    with measured(folder, ["store"]) as runs:
        finished(built(catalogue, folder, f"cache={folder / 'store'}"), folder)
    return runs[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds in all ways and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="keeps everything there")
    parser.add_argument("--kill-after", type=int, default=15, help="records")
    found = parser.parse_args(arguments)
    adopt_orphans()
    with work_folder(found.folder) as folder:
        os.environ |= {"PYTHONDONTWRITEBYTECODE": "", "OMP_NUM_THREADS": "1"}
        catalogue = written(folder)
        runs = {
            "one worker": by_workers(folder / "one", catalogue, 1),
            "three workers, one killed, one added":
                by_workers(folder / "three", catalogue, 3, found.kill_after),
            "without Dask": alone(folder / "alone", catalogue),
        }
        table(runs)
    return 0


def table(runs: Mapping[str, Run]) -> None:
    """Prints what each run took, beside the first, and whether its bundles are the same."""
    first = next(iter(runs.values()))
    wanted = files(first.bundles)
    print("| | wall clock | ratio | processor | steps | made twice | other files |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for what, run in runs.items():
        steps, found = run.steps(), files(run.bundles)
        others = sum(wanted.get(name) != found.get(name) for name in {*wanted, *found})
        print(f"| {what} | {run.wall_s:.0f} s | {run.wall_s / first.wall_s:.2f} | "
              f"{run.cpu_s:.0f} s | {len(steps)} | {sum(n > 1 for n in steps.values())} | "
              f"{others} of {len(found)} |")


if __name__ == "__main__":
    sys.exit(main())
