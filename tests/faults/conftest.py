"""Stages for scenes: on a file system in memory if there is one, where syncing costs nothing."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
import watch
from scenes import Stage


@pytest.fixture(scope="session")
def stages():
    """One for each of two processors."""
    if reason := watch.why_not():
        pytest.skip(reason)
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    base = Path(tempfile.mkdtemp(prefix="sdbuild-faults-", dir=place))
    made = [Stage(base / str(number)) for number in range(2)]
    yield made
    for stage in made:
        stage.close()
    shutil.rmtree(base)


@pytest.fixture
def stage(stages):
    return stages[0]
