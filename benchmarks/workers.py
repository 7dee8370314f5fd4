"""A small catalogue made on one machine, and by three workers of which one is killed and one added.

    python -m benchmarks.workers [--folder FOLDER] [--kill-after N]

Two checkpoints in four variants each: tiny-emoji, and the same with other weights, as a fine-tune
has. Each worker is a process with a store of its own, and a folder is the shared store. Tells
whether both ways give the same files, how many steps were made in several stores, and the time of
processors. Wall clock says little where all workers share the cores of one machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.measure import work_folder
from sdbuild.base.digest import digest_file
from sdbuild.store import Store

ROOT = Path(__file__).parents[1]
CATALOGUE = """\
[matrix]
quant = [4, 6, 8, "none"]

[[recipe]]
model = "tiny-emoji"
components = ["text_encoder", "unet", "vae_decoder"]

[[recipe]]
model = "tiny-emoji"
source = "{tuned}"
components = ["text_encoder", "unet", "vae_decoder"]
"""
TUNED = 1.001
"""The factor by which the second checkpoint's weights differ, so that no file is the same."""


class Machines:
    """A scheduler of Dask and its workers, as processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        file = folder / "address"
        self._start("scheduler", "--port", "0", "--scheduler-file", str(file), "--no-dashboard")
        wait_for(file.exists)
        self.address: str = json.loads(file.read_text())["address"]

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


def tuned(folder: Path) -> Path:
    """Writes a checkpoint of the same architecture with other weights."""
    from safetensors.numpy import load_file, save_file

    place = folder / "tuned"
    shutil.copytree(ROOT / "recipes" / "tiny-emoji", place)
    for path in place.rglob("*.safetensors"):
        tensors = load_file(path)
        save_file({name: (value * TUNED).astype(value.dtype) if value.dtype.kind == "f" else value
                   for name, value in tensors.items()}, path, {"format": "pt"})
    return place


def built(catalogue: Path, bundles: Path, *words: str) -> subprocess.Popen[bytes]:
    """Starts to build the catalogue."""
    with bundles.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "sdbuild", "build", "--matrix", str(catalogue),
             f"bundle={bundles}", *words], stdout=log, stderr=log, cwd=catalogue.parent)


def files(folder: Path) -> dict[str, str]:
    """Returns the digest of each file in a folder."""
    return {str(path.relative_to(folder)): digest_file(path)
            for path in folder.rglob("*") if path.is_file()}


def made(store: Path) -> Counter[str]:
    """Returns the keys of the steps that ran in a store, each once."""
    return Counter(record.key for record in Store(store).records() if not record.origin)


def processor_s() -> float:
    """Returns the seconds of processors of all processes that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def on_machines(folder: Path, catalogue: Path, kill_after: int) -> tuple[float, float]:
    """Builds on three workers, kills one when there are so many records, and adds one; the seconds
    of wall clock and of processors."""
    shared, machines, began = folder / "shared", Machines(folder), time.monotonic()
    before = processor_s()
    for name in ("one", "two", "three"):
        machines.worker(name)
    client = built(catalogue, folder / "on-machines", "--on", machines.address,
                   f"remote={shared}", f"cache={folder / 'client'}")
    wait_for(lambda: sum(1 for _ in shared.glob("records/**/*.json")) >= kill_after
             or client.poll() is not None)
    machines.kill("two")
    machines.worker("four")
    if client.wait():
        sys.exit((folder / "on-machines.log").read_text())
    wall_s = time.monotonic() - began
    for name in list(machines.processes):
        machines.kill(name)
    return wall_s, processor_s() - before


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds both ways and prints what differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="keeps everything there")
    parser.add_argument("--kill-after", type=int, default=15, help="records")
    found = parser.parse_args(arguments)
    with work_folder(found.folder) as folder, tempfile.TemporaryDirectory() as bytecode:
        os.environ |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": bytecode,
                       "OMP_NUM_THREADS": "1"}
        catalogue = folder / "catalogue.toml"
        catalogue.write_text(CATALOGUE.format(tuned=tuned(folder)))
        wall_s, used_s = on_machines(folder, catalogue, found.kill_after)
        stores = {name: made(folder / name) for name in ("one", "two", "three", "four", "client")}
        total = sum(stores.values(), Counter())
        print(f"three workers, one killed, one added: {wall_s:.0f} s, {used_s:.0f} s of processors")
        print("steps made: " + ", ".join(f"{name} {len(keys)}" for name, keys in stores.items()))
        print(f"distinct: {len(total)}; made twice: {sum(n > 1 for n in total.values())}")
        began, before = time.monotonic(), processor_s()
        if built(catalogue, folder / "alone", f"cache={folder / 'store'}").wait():
            sys.exit((folder / "alone.log").read_text())
        print(f"one machine: {time.monotonic() - began:.0f} s, "
              f"{processor_s() - before:.0f} s of processors, "
              f"{len(made(folder / 'store'))} steps")
        one, other = files(folder / "alone"), files(folder / "on-machines")
        others = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
        print(f"{len(one)} files, of which {len(others)} differ{': ' if others else ''}"
              f"{', '.join(others)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
