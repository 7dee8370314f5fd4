"""Schedulers, workers and clients of Dask as processes."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.cluster import RUNS
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
SITE = Path(__file__).parent / "small"


BYTECODE = Path(tempfile.gettempdir()) / "sdbuild-tests-bytecode"
"""The folder with the compiled modules of all these processes."""


class Scheduler:
    """A scheduler, on the loopback interface unless `options` say otherwise."""

    def __init__(self, folder, options=("--host", "127.0.0.1")):
        self.options = (*options, "--no-dashboard")
        self._file = folder / "address"
        self.process = started("scheduler", folder / "scheduler.log", "--port", "0",
                               "--scheduler-file", str(self._file), *self.options)
        wait_for(lambda: self._file.exists() and self._file.stat().st_size, self.process)

    @property
    def address(self):
        return json.loads(self._file.read_text())["address"]

    def kill(self):
        self.process.kill()
        self.process.wait()


def started(kind, log, *words, **environment):
    """Starts a program of Dask; its process."""
    with log.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{kind}", *words],
            env=surroundings(**environment), cwd=log.parent, stdout=file, stderr=subprocess.STDOUT)


def surroundings(**more):
    """Returns the environment of all processes."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(SITE), str(ROOT)]), "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(BYTECODE),
    } | more


class Machines:
    """Workers, each with a store of its own, and clients, at a scheduler that may be shared."""

    def __init__(self, folder, scheduler):
        self.folder = folder
        self.scheduler = scheduler
        self.runs_file = folder / "runs"
        self.runs_file.touch()
        self.processes = {}

    @property
    def address(self):
        return self.scheduler.address

    def worker(self, name, *options, **environment):
        self.processes[name] = started(
            "worker", self.folder / f"{name}.log",
            self.address, *self.scheduler.options, *options, "--no-nanny", "--nthreads", "1",
            "--name", name, "--local-directory", str(self.folder / f"{name}-dask"),
            **self.environment(SDBUILD_CACHE=str(self.folder / name), **environment))

    def wait_for_worker(self, name):
        """Waits until a worker has joined."""
        wait_for(lambda: "Registered" in (self.folder / f"{name}.log").read_text(),
                 self.processes[name])

    def environment(self, **more):
        return {RUNS: str(self.runs_file)} | more

    def client(
        self, *weights, nbits=(4, 8), cache="client", address=None, remote=None, cwd=None,
        **environment,
    ):
        """Starts to build on the workers; a process, whose lines can be read."""
        return subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.client", address or self.address,
             str(self.folder / cache), remote or str(self.folder / "shared"),
             ",".join(map(str, nbits)), *map(str, weights)],
            env=surroundings(**self.environment(**environment)), cwd=cwd or self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)

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


def wait_for_line(client, text):
    """Waits until a client prints a line with some text; the line."""
    for line in client.stdout:
        if text in line:
            return line
    raise AssertionError(client.communicate()[1])


def result(client):
    out, err = client.communicate()
    assert client.returncode == 0, err
    *lines, last = out.splitlines()
    return json.loads(last), lines
