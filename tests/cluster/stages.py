"""Stages of few bytes in place of all real ones, which note each of their runs; and plans of them.

Everything else is real: processes of steps, stores, the shared store, Dask.
"""

import os
import sys
import types
from pathlib import Path

from sdbuild.base.errors import SourceError, StepError
from sdbuild.checkpoints.normalized import ARCHITECTURE
from sdbuild.engine.plan import Plan
from sdbuild.engine.stage import STAGES, BundleStage, From, Memory, Time
from sdbuild.engine.step import Step
from sdbuild.recipe.sources import Source
from tests.cluster import RUNS, VERSION


def download(job):
    for place in job.places:
        (job.output / "weights").write_bytes(Path(place).read_bytes())
    if (job.output / "weights").read_text() == "cut":
        raise SourceError("download: the file is cut")
    (job.output / ARCHITECTURE).write_text("the same in every checkpoint")


def lower(job):
    (job.output / "program").write_text(f"program of {job.inputs['architecture'].read_text()}")


def convert(job):
    weights = (job.inputs["checkpoint"] / "weights").read_text()
    if weights == "broken":
        raise StepError("convert: the weights are broken", hint="take others")
    (job.output / "package").write_text(f"{(job.inputs['program'] / 'program').read_text()} "
                                        f"with {weights}")


def palettize(job):
    (job.output / "package").write_text(
        f"{(job.inputs['package'] / 'package').read_text()} in {job.params['nbits']} bits")


def bundle(job):
    (job.output / "bundle").write_text((job.inputs["model"] / "package").read_text())


def stage(kind, work):
    """A module as those of `sdbuild.steps`, whose stage notes each of its runs.

    One that compresses holds as many megabytes as its bits.
    """
    class Noted(BundleStage):
        version = int(os.environ.get(VERSION, "1")) if kind == "convert" else 1
        summary = kind
        memory = Memory(1_000_000)
        time = Time(0.1)
        params = inputs = None

        def memory_of(self, params):
            return Memory(params.get("nbits", 1) * 1_000_000)

        def run(self, job):
            with Path(os.environ[RUNS]).open("a") as file:
                file.write(f"{job.output.parent.name.partition('-')[0]} {kind}\n")
            work(job)

    module = types.ModuleType(f"sdbuild.steps.{kind}")
    module.STAGE = Noted()
    sys.modules[module.__name__] = module


WORK = {work.__name__: work for work in (download, lower, convert, palettize, bundle)}

for name in STAGES:  # a real one may read what another's module holds, so none is left
    stage(name, WORK.get(name))


def plan(weights, nbits):
    """download → lower (of the architecture) → convert → palettize → bundle."""
    source = Source(places=(str(weights),), are_files=True)
    steps = [
        Step(kind="download", component="unet", source=source, reads=("weights",)),
        Step(kind="lower", component="unet",
             inputs={"architecture": From("download:unet", ARCHITECTURE)}),
        Step(kind="convert", component="unet", inputs={
            "checkpoint": From("download:unet"), "program": From("lower:unet")}),
        Step(kind="palettize", component="unet", params={"nbits": nbits},
             inputs={"package": From("convert:unet")}),
        Step(kind="bundle", inputs={"model": From("palettize:unet")}),
    ]
    recipe = types.SimpleNamespace(variant=f"{Path(weights).parent.name}-{nbits}", components=(),
                                   sources=types.SimpleNamespace(checkpoint=source),
                                   packaging=types.SimpleNamespace(lower="here"))
    return Plan(recipe=recipe, steps={step.name: step for step in steps})
