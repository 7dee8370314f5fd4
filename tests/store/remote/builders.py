"""Machines that build: three small stages, and which of them ran."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from sdbuild.engine import build
from sdbuild.engine.build import Builder
from sdbuild.engine.plan import Plan
from sdbuild.engine.stage import ComponentStage, From, Memory, Time
from sdbuild.engine.step import Step
from sdbuild.recipe.recipe import load
from sdbuild.store import Store
from sdbuild.store.remote.remote import Remote

CHAIN = ("trace", "chunk", "compile")
LARGE_BYTES = 300_000
"""Of the large file of each artifact, about."""


def run(job):
    """Writes the text of its input and its own name, in a small file and a large one."""
    text = Path(job["inputs"]["before"]).read_text() if job["inputs"] else ""
    text += "/" + job["params"]["name"]
    (job["output"] / "small").write_text(text)
    (job["output"] / "large").write_text(text * (LARGE_BYTES // len(text)))


class Bare(ComponentStage):
    """A stage whose work is `run`, done in this process."""

    version = 1
    memory = Memory(1_000_000)
    time = Time(0.1)
    params = run = None


@pytest.fixture
def stages(monkeypatch):
    """Stages that need no process of their own; which of them ran."""
    ran = []
    for kind in CHAIN:
        module = ModuleType(f"sdbuild.steps.{kind}")
        module.STAGE = Bare()
        monkeypatch.setitem(sys.modules, module.__name__, module)

    def run_step(kind, job, work, watch, **how):
        ran.append(kind)
        run(job | {"output": work / "out"})
        return {}, 1

    monkeypatch.setattr(build, "run_step", run_step)
    return ran


def builder(folder, url):
    """A machine with a store of its own in `folder`, and the shared one."""
    steps = {}
    for before, kind in zip((None, *CHAIN), CHAIN, strict=False):
        inputs = {"before": From(f"{before}:unet", "small")} if before else {}
        step = Step(kind=kind, component="unet", params={"name": kind}, inputs=inputs)
        steps[step.name] = step
    store = Store(folder)
    return Builder(Plan(recipe=load({}), steps=steps), store, remote=Remote(url, store, 20))


def content(builder, record):
    return {e.path: builder.store.object(e.digest).read_text() for e in record.tree}


def has(builder, name, path=""):
    return builder.store.has_content(builder.state(name).record, path)
