"""doit and sdbuild as a user runs them, on a store of a test's own."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PLAIN = {"PYTHONWARNINGS": "default", "PYTEST_CURRENT_TEST": ""}
"""Variables of all commands, the same in each test: steps are forked from a process only where they
have its environment."""


class Project:
    """doit and sdbuild on a store and bundles of a test's own."""

    def __init__(self, folder):
        self.folder = folder
        self.cache = folder / "cache"

    def copy(self, folder, copy_function=os.link):
        """A copy of the store, without bundles; the files of its artifacts are shared."""
        copy = Project(folder)
        shutil.copytree(self.cache / "objects", copy.cache / "objects",
                        copy_function=copy_function)
        shutil.copytree(self.cache / "records", copy.cache / "records")
        for gone in self.cache.glob("gone.json"):  # graphs of shipped programs, which are not here
            shutil.copy2(gone, copy.cache)
        return copy

    def command(self, *words, **places):
        places = {"cache": self.cache, "bundle": self.folder / "bundle"} | places
        if "source" in places:  # the checkpoints of most tests are tiny-emoji's
            places = {"model": "tiny-emoji"} | places
        places = {name: value for name, value in places.items() if value is not None}
        return [*words, *(f"{name}={value}" for name, value in places.items())]

    def doit(self, *words, status=0, **places):
        """Runs doit; what it printed."""
        return run([sys.executable, "-m", "doit", *self.command(*words, **places)], status)

    def sdbuild(self, *words, status=0, **places):
        """Runs a command of sdbuild; what it printed."""
        return run([sys.executable, "-m", "sdbuild", *self.command(*words, **places)], status)

    def ran(self, *words, **places):
        """Runs doit; the names of the steps that ran."""
        lines = re.findall(r"^\.  (\S+)", self.doit(*words, **places), re.MULTILINE)
        return set(lines) - {"build", "generate", "check", "report"}

    def why(self, *words, **places):
        found = self.sdbuild("why", *words, **places)
        return dict(re.split(r"\s{1,}", line, maxsplit=1) for line in found.splitlines())

    @property
    def bundle(self):
        return self.folder / "bundle"


def run(command, status):
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | PLAIN,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == status, printed
    assert "Traceback" not in printed, printed
    return printed


def running(cache):
    """The processes of steps in a store: by their arguments, or by their logs where they are
    forked."""
    listed = subprocess.run(["ps", "-axww", "-o", "args="], capture_output=True, text=True,
                            check=True).stdout
    started = [line for line in listed.splitlines()
               if "sdbuild.steps" in line and str(cache) in line]
    return started + [file for file in Path("/proc").glob("[0-9]*/fd/1") if is_within(file, cache)]


def is_within(link, folder):
    """Whether a link, which may be gone, goes to a file in a folder."""
    with suppress(OSError):
        return str(link.readlink()).startswith(str(folder))
    return False
