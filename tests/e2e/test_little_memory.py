"""Memory as a promise, with real steps: refused, killed, out of disk, waiting."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sdbuild.store import Store

ROOT = Path(__file__).parent.parent.parent
GROUPS = Path("/sys/fs/cgroup/memory")


def keys(project):
    return {record.key for record in Store(project.cache).records()}


def test_a_step_that_cannot_fit_is_refused_before_anything_starts(project, own_checkpoint):
    before = keys(project)

    printed = project.doit("lower:unet", "target=iOS17", "ram=200M", status=1)

    assert "lower:unet probably holds" in printed
    assert "more than the 200.0 MB that it may" in printed
    assert "hint: another machine can make it once" in printed
    assert ".  " not in printed
    assert keys(project) == before


def test_what_is_made_is_never_refused(project):
    assert project.ran("compile", "ram=100M") == set()


def test_memory_changes_no_artifact(project):
    assert project.ran("build", "ram=30G") == set()


def test_an_amount_of_memory_is_a_number_and_a_unit(project):
    printed = project.doit("build", "ram=8", status=2)

    assert "ram is '8', expected an amount of memory from 100M, such as 8G" in printed


@pytest.fixture
def small_group():
    """A control group of 220 MB, which is less than the lowering of any network holds."""
    group = GROUPS / f"sdbuild-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text("220M")
    except OSError:
        pytest.skip("no control group can be made here (Linux, root, version 1)")
    yield group
    group.rmdir()


@pytest.mark.slow
def test_a_step_that_the_system_kills_says_what_it_held(project, small_group):
    project.doit("trace:vae_decoder", "lower=here")
    words = project.command("lower:vae_decoder", "target=iOS17", "ram=4G")
    script = f'echo $$ > {small_group}/cgroup.procs && exec "$@"'

    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-m", "doit", *words], cwd=ROOT,
        capture_output=True, text=True, check=False,
    )

    assert done.returncode == 1
    message = (r"lower: its process was killed, most likely out of memory; "
               r"it used [12]\d\d\.\d MB")
    assert re.search(message, done.stdout)
    assert "close other programs" in done.stdout
    assert list((project.cache / "work").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB, too small for any component's weights."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("nothing can be mounted here (Linux, root)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_reported_with_what_helps(project, small_disk):
    printed = project.doit("download:unet", status=1, cache=small_disk)

    assert "No space left on device" in printed
    assert "hint: free some space" in printed
    assert "put the store elsewhere with cache=PATH" in printed
    assert list(Store(small_disk).records()) == []


@pytest.mark.slow
def test_steps_that_do_not_fit_together_wait_for_each_other(project):
    """Both are estimated at more than half of what they may hold together."""
    for name in ("vae_decoder", "vae_encoder"):  # lower alone shall run
        project.sdbuild("export", f"trace:{name}", project.folder / name, bundle=None)

    printed = project.doit("-n", "2", "lower:vae_decoder", "lower:vae_encoder", "target=iOS17",
                           "ram=500M")

    assert " of the 500.0 MB of memory, reserved by lower:vae_" in printed
    assert printed.count("waits for") == 1
