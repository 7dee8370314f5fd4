"""Steps that are forked from one process are as alone as those with a Python of their own."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from sdbuild.base.errors import OutOfMemory, StepError
from sdbuild.engine.forks import SHARED, Forks, environment, forked
from sdbuild.engine.process import run_step
from sdbuild.recipe.recipe import load
from tests.inprocess import Steps
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")

OTHERS = set()
"""Processes that were there before a test."""


def job(folder):
    """A workspace, and a job that no stage can do: there is no architecture."""
    folder.mkdir()
    (folder / "out").mkdir()
    return {"params": {}, "inputs": {"architecture": str(folder / "none")},
            "output": str(folder / "out")}, folder


@pytest.fixture(scope="module")
def own_forks():
    """A process to fork from that no other module has."""
    forks = Forks(idle_s=600)
    OTHERS.update(children(os.getpid()))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(SHARED, raising=False)
        patch.setenv("PYTEST_CURRENT_TEST", "")
        patch.setattr("sdbuild.engine.forks._FORKS", forks)
        yield forks
    OTHERS.clear()
    forks.close()


@pytest.fixture(autouse=True)
def same_environment(monkeypatch):
    """The environment that a process was started in is that of the next test."""
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "")


@pytest.fixture
def long_job(tmp_path):
    """A workspace, and a job of some seconds: the trace of the built-in text encoder."""
    steps = Steps(load({"model": "tiny-emoji"}), tmp_path)
    step = steps.plan.steps["trace:text_encoder"]
    (tmp_path / "work" / "out").mkdir(parents=True)
    (source,) = step.inputs.values()
    return {"params": dict(step.params), "output": str(tmp_path / "work" / "out"),
            "inputs": {"architecture": str(steps[source.step] / source.path)}}, tmp_path / "work"


def children(pid):
    """The processes that a process started, and theirs; not the one that all tests share."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            state, parent, *_ = place.read_text().rpartition(")")[2].split()
            if int(parent) == pid and state != "Z":  # it has ended, and nobody has asked yet
                found.append(int(place.parent.name))
    own = [child for child in found if child not in OTHERS]
    return own + [each for child in own for each in children(child)]


def packages_of(pid):
    """The packages that a process has loaded libraries of."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {part for line in maps for part in line.split("/")}


def test_a_step_that_imports_nothing_slow_has_a_python_of_its_own(tmp_path, own_forks):
    params, work = job(tmp_path / "work")

    with pytest.raises(StepError):
        run_step("palettize", params, work, is_forked=True)

    assert all(packages_of(pid).isdisjoint({"torch"}) for pid in children(os.getpid()))


def with_torch():
    """The processes below this one that have imported torch."""
    found = []
    for pid in children(os.getpid()):
        with suppress(OSError):  # it has just ended
            found += [pid] if "torch" in packages_of(pid) else []
    return found


@pytest.mark.slow
def test_a_forked_step_fails_as_one_with_a_python_of_its_own(tmp_path, own_forks):
    """And the one that they are forked from has made the imports."""
    found = []
    for number, is_forked in enumerate((False, True, True)):
        params, work = job(tmp_path / f"work{number}")
        with pytest.raises(StepError) as caught:
            run_step("trace", params, work, is_forked=is_forked)
        found.append(str(caught.value).replace(work.name, "work").splitlines()[-1])

    assert len(set(found)) == 1
    wait_for(lambda: len(with_torch()) == 1)  # who waited for the last step may still end


@pytest.mark.slow
def test_a_step_has_the_environment_that_libraries_saw_when_they_were_imported(
    tmp_path, own_forks, monkeypatch,
):
    """One that has another is not forked: it has a Python of its own, and no process is left."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    params, work = job(tmp_path / "work")
    before = set(children(os.getpid()))  # of which one may still end

    with Path(os.devnull).open("wb") as log:
        assert forked("trace", {}, work, log.fileno(), log.fileno()) is None
    with pytest.raises(StepError):
        run_step("trace", params, work, is_forked=True)

    assert set(children(os.getpid())) <= before


@pytest.mark.slow
@pytest.mark.parametrize(("number", "error", "message"), [
    (signal.SIGKILL, OutOfMemory, "killed, most likely out of memory"),
    (signal.SIGBUS, StepError, "was cut, or its disk does not answer"),  # of a mapped file
], ids=["no memory", "no disk"])
def test_a_forked_step_that_the_system_kills_says_so(long_job, own_forks, number, error, message):
    """It is killed in the moment in which it is first looked at."""
    killed = threading.Event()

    def watch(progress, held):
        if not killed.is_set():
            killed.set()
            os.kill(max(children(os.getpid())), number)

    with pytest.raises(error, match=message):
        run_step("trace", *long_job, watch, is_forked=True)


@pytest.mark.slow
def test_nothing_is_left_of_who_builds_and_is_killed(long_job):
    """Neither the step, nor the one that waits for it, nor the one that they were forked from."""
    params, work = long_job
    script = ("from pathlib import Path; from sdbuild.engine.process import run_step\n"
              f"run_step('trace', {params!r}, Path({str(work)!r}), is_forked=True)")
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL,
                               env=os.environ | {SHARED: ""})
    wait_for(lambda: len(children(process.pid)) == 3, process)
    found = children(process.pid)

    process.kill()
    process.wait()

    wait_for(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in found))


def test_a_command_leaves_no_process_to_fork_from_behind():
    """Python would say so, as it ends."""
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c",
         "from sdbuild.engine import forks; forks._FORKS.connect().close(); "
         "print(forks._FORKS._process.pid)"], capture_output=True, text=True, check=True)

    assert done.stderr == ""
    assert not Path("/proc", done.stdout.strip()).exists()


def test_processes_that_share_a_name_fork_from_one_and_start_another_when_it_ends():
    first, second = Forks(idle_s=600), Forks(idle_s=600)
    try:
        for forks in (first, second):
            forks.share("sdbuild-test-of-forks")
            forks.connect().close()
        assert second._process is None

        first.close()
        second.connect().close()
        assert second._process.poll() is None
        first.connect().close()
        assert first._process.poll() is not None, "it uses the other's"
    finally:
        first.close()
        second.close()


def test_steps_of_several_stores_may_be_forked_from_one_process(monkeypatch):
    environments = []
    for store in ("one", "two"):
        monkeypatch.setenv("SDBUILD_CACHE", store)
        environments.append(environment())

    assert environments[0] == environments[1]
