"""A scheduler and workers of Dask as processes, each worker with a store of its own."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.cluster import RUNS
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
SITE = Path(__file__).parent / "small"


class Machines:
    """A scheduler and its workers, on the loopback interface unless `options` say otherwise."""

    def __init__(self, folder, options=("--host", "127.0.0.1")):
        self.folder = folder
        self.options = options
        self.runs_file = folder / "runs"
        self.runs_file.touch()
        self.processes = {}
        self.start("scheduler", "--port", "0", "--scheduler-file", str(folder / "address"),
                   "--no-dashboard")
        wait_for(lambda: (folder / "address").exists() and (folder / "address").stat().st_size,
                 self.processes["scheduler"])

    @property
    def address(self):
        return json.loads((self.folder / "address").read_text())["address"]

    def start(self, name, *words, **environment):
        program = "scheduler" if name == "scheduler" else "worker"
        with (self.folder / f"{name}.log").open("w") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{program}", *self.options, *words],
                env=self.environment(SDBUILD_CACHE=str(self.folder / name), **environment),
                cwd=self.folder, stdout=log, stderr=subprocess.STDOUT)

    def worker(self, name, **environment):
        self.start(name, self.address, "--no-nanny", "--nthreads", "1", "--name", name,
                   "--no-dashboard", "--local-directory", str(self.folder / f"{name}-dask"),
                   **environment)

    def wait_for_worker(self, name):
        """Waits until a worker has joined."""
        wait_for(lambda: "Registered" in (self.folder / f"{name}.log").read_text(),
                 self.processes[name])

    def environment(self, **more):
        return os.environ | {
            "PYTHONPATH": os.pathsep.join([str(SITE), str(ROOT)]), RUNS: str(self.runs_file),
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(self.folder.parent / "pyc"),
        } | more

    def client(self, *weights, nbits=(4, 8), cache="client", address=None, **environment):
        """Starts to build on the workers; a process, whose lines can be read."""
        return subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.client", address or self.address,
             str(self.folder / cache), str(self.folder / "shared"),
             ",".join(map(str, nbits)), *map(str, weights)],
            env=self.environment(**environment), cwd=self.folder, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)

    def built(self, *weights, **options):
        """Builds; what the client printed last, and the lines before that."""
        return result(self.client(*weights, **options))

    def wait_for_runs(self, number, client):
        """Waits until that many steps ran for a client, which has more to do then."""
        try:
            wait_for(lambda: sum(self.runs.values()) >= number, client)
        except AssertionError:
            client.kill()
            raise AssertionError("\n".join(client.communicate())) from None

    def kill(self, name):
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes.pop(name).wait()

    @property
    def runs(self):
        """Returns the number of runs of each step, by key and kind."""
        return Counter(self.runs_file.read_text().splitlines())

    def close(self):
        for process in self.processes.values():
            process.kill()
            process.wait()


def result(client):
    out, err = client.communicate()
    assert client.returncode == 0, err
    *lines, last = out.splitlines()
    return json.loads(last), lines
