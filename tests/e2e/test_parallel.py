"""`doit -n`: several steps at a time, however this system starts processes."""

import os
import signal
import subprocess
import sys

import pytest

from sdbuild.base.machine import processors
from sdbuild.store import Store
from tests.e2e.project import ROOT, running
from tests.waiting import wait_for

PARTS = ("resources", "text_encoder", "unet", "vae_decoder", "vae_encoder")
START = """
import multiprocessing
multiprocessing.set_start_method({method!r})
"""


@pytest.fixture(params=["fork", "spawn"])
def start_method(request, tmp_path, monkeypatch):
    """Sets the start method of processes in all that a test runs; `spawn` is the default on a
    Mac."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(START.format(method=request.param))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    return request.param


@pytest.mark.parametrize("words", [(), ("-P", "process")], ids=["as it is", "-P process"])
def test_steps_run_side_by_side(new_project, built, start_method, words):
    ran = new_project.ran(*words, "-n", "2", "download")

    assert ran == {f"download:{part}" for part in PARTS}
    known = {record.key: record.digest() for record in Store(built.cache).records()}
    for record in Store(new_project.cache).records():
        assert known[record.key] == record.digest()


def test_a_step_that_fails_beside_others_is_reported(project, own_checkpoint, start_method):
    (own_checkpoint / "tokenizer" / "vocab.json").write_text("<html>404</html>")

    printed = project.doit("-n", "2", "bundle", status=1, source=own_checkpoint)

    assert "vocab.json" in printed


@pytest.mark.skipif(processors() < 2, reason="a step for each processor")
def test_ctrl_c_ends_steps_that_run_side_by_side_unless_asked_otherwise(new_project, start_method):
    process = subprocess.Popen(
        [sys.executable, "-m", "doit", *new_project.command("trace", "lower=here")],
        cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(lambda: len(list(new_project.cache.glob("work/*/in/architecture"))) > 1, process)

    os.killpg(process.pid, signal.SIGINT)
    printed = process.communicate()[0]

    assert process.returncode == 130
    assert "interrupted; finished steps are kept" in printed
    assert "Traceback" not in printed
    wait_for(lambda: not running(new_project.cache))
