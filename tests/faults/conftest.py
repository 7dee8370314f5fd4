"""Stages for scenes: on a file system in memory if there is one, where syncing costs nothing."""

import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.faults.scenes", "tests.faults.walk")

from tests.faults import tally, watch  # noqa: E402
from tests.faults.scenes import Stage  # noqa: E402


@pytest.fixture(scope="session")
def stages():
    """One for each of two processors."""
    if reason := watch.why_not():
        pytest.skip(reason)
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    base = Path(tempfile.mkdtemp(prefix="sdbuild-faults-", dir=place))
    made = [Stage(base / str(number)) for number in range(2)]
    time.sleep(2.1)  # checkpoints so young are read again each time
    yield made
    for stage in made:
        stage.close()
    shutil.rmtree(base)


@pytest.fixture
def stage(stages):
    return stages[0]


@pytest.fixture(scope="session")
def every(request):
    """Of how many places walks try one: of each if the page is written; None, unless said
    otherwise, for as few as show each kind of operation."""
    given = request.config.getoption("every")
    return given or (1 if request.config.getoption("accept") else None)


@pytest.fixture(scope="session")
def counted(request):
    """The counts of the walks; `--accept` writes them into `docs/faults.md`."""
    found = tally.Tally()
    yield found
    if request.config.getoption("accept"):
        found.write()
