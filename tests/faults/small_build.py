"""A small real build: the true builder, store and processes of steps, on stages of few bytes.

The functions at the end are what is watched; each gives what it found as JSON.
"""

import json
import os
import sys
import traceback
import types
from pathlib import Path

from sdbuild.base.digest import digest_bytes
from sdbuild.base.errors import SDBuildError
from sdbuild.bundle.install import install
from sdbuild.bundle.manifest import write_manifest
from sdbuild.checkpoints import RESOURCES
from sdbuild.engine import process
from sdbuild.engine import relink as relinking
from sdbuild.engine.build import Builder
from sdbuild.engine.plan import Plan
from sdbuild.engine.stage import VIRTUAL, BundleStage, From, Memory, Time
from sdbuild.engine.step import Step
from sdbuild.recipe.sources import Source
from sdbuild.reports.gc import collect
from sdbuild.reports.verify import verify
from sdbuild.steps import __main__ as step_process
from sdbuild.store import Store
from sdbuild.store.disk import link_out
from sdbuild.store.scan import files

RUNS = "SDBUILD_TEST_RUNS"
"""The variable that names the file in which each run of a stage is noted."""


VIRTUAL_BITS = 4
"""Packages of so many bits are virtual."""


def download(job):
    for place in job.places:
        (job.output / Path(place).stem).write_bytes(Path(place).read_bytes())
    (job.output / "sub").mkdir()
    (job.output / "sub" / "config").write_text("the same in every checkpoint")


def convert(job):
    link_out(job.inputs["checkpoint"] / "sub" / "config", job.output / "config")
    package = converted(job)
    if job.resources.get("virtual_from_bytes", 1 << 60) <= len(package):
        return {VIRTUAL: {"package": [digest_bytes(package), len(package)]}}
    (job.output / "package").write_bytes(package)
    return {}


def converted(job):
    return (job.inputs["checkpoint"] / "weights").read_bytes() * job.params["nbits"]


def compile_(job):
    models = job.output / f"{job.params['name']}.mlmodelc"
    if "package" in job.virtual:
        models.mkdir()
        (models / "package").write_bytes(converted(job.virtual["package"]))
    for path in sorted(job.inputs["package"].iterdir()):
        if path.is_file():
            link_out(path, models / path.name)
    (models / "model").write_text(f"compiled {job.params['name']}")


def bundle(job):
    for name in ("unet", "vae_decoder"):
        for path in files(job.inputs[name]):
            link_out(path, job.output / path.relative_to(job.inputs[name]))
    made_from = json.loads(job.inputs["provenance"].read_text())
    write_manifest(job.output, {"schema": 1, "made_from": made_from, **job.params})


def stage(kind, work):
    """A module as those of `sdbuild.steps`, whose stage notes each of its runs."""
    class Noted(BundleStage):
        version = 1
        memory = Memory(1_000_000)
        time = Time(0.1)
        needs_provenance = kind == "bundle"
        reads_virtual = ("package",) if kind == "compile" else ()
        params = inputs = None

        def may_be_virtual(self, params, path):
            return kind == "convert" and path == "package" and params["nbits"] == VIRTUAL_BITS

        def run(self, job):
            key = job.output.parent.name.partition("-")[0]
            note(f"start {os.getppid()} {key}")
            facts = work(job)
            note(f"end {os.getppid()} {key}")
            return facts

    module = types.ModuleType(f"sdbuild.steps.{kind}")
    module.STAGE = Noted()
    sys.modules[module.__name__] = module


def note(line):
    handle = os.open(os.environ[RUNS], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{line}\n".encode())
    os.close(handle)


stage("download", download)
stage("convert", convert)
stage("compile", compile_)
stage("bundle", bundle)


class Forked:
    """A `subprocess.Popen` of `python -P -m sdbuild.steps KIND WORK WRITER` without a new Python.

    As there, it has no open file of its parent's but the writer: it may end a moment later, and
    would hold locks.
    """

    def __init__(self, command, *, stdin, stdout, stderr, env, pass_fds):
        mine, self.stdin_handle = os.pipe()
        self.returncode = None
        self.pid = os.fork()
        if not self.pid:
            os.dup2(mine, 0)
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            (writer,) = pass_fds
            os.closerange(3, writer)
            os.closerange(writer + 1, os.sysconf("SC_OPEN_MAX"))
            status = 70
            try:
                status = step_process.main(command[-3], Path(command[-2]), writer)
                sys.stderr.flush()
            except BaseException:
                traceback.print_exc()
            finally:  # the log may be on a full disk
                os._exit(status)
        os.close(mine)
        self.stdin = os.fdopen(self.stdin_handle, "wb")

    def kill(self):
        os.kill(self.pid, 9)

    def wait(self):
        os.waitpid(self.pid, 0)


process.subprocess = types.SimpleNamespace(Popen=Forked, PIPE=-1)
relinking._warnings = lambda out: []  # the contract of hosts wants a real bundle


COMPONENTS = ("unet", "vae_decoder")


def plan(source, nbits=2, components=COMPONENTS):
    """download → convert → compile of a U-Net, download → compile of a decoder, and a bundle."""
    def read(name):
        return Source(places=(str(Path(source) / name / "weights.safetensors"),), are_files=True)

    params = {
        "name": f"small-{nbits}", "family": "sd", "width_px": 8, "height_px": 8,
        "attention": "original", "target": "iOS16", "scale_factor": 1.0, "pad_token": "!",
        "prediction_type": "epsilon", "scheduler": {}, "draw": {},
        "components": {"unet": {"models": ["Unet.mlmodelc"], "nbits": nbits},
                       "vae_decoder": {"models": ["Vae.mlmodelc"], "nbits": nbits}},
    }
    steps = [
        Step(kind="download", component="unet", source=read("unet"), reads=(RESOURCES,)),
        Step(kind="convert", component="unet", params={"nbits": nbits},
             inputs={"checkpoint": From("download:unet")}),
        Step(kind="compile", component="unet", params={"name": "Unet"},
             inputs={"package": From("convert:unet")}),
        Step(kind="download", component="vae_decoder", source=read("vae"), reads=(RESOURCES,)),
        Step(kind="compile", component="vae_decoder", params={"name": "Vae"},
             inputs={"package": From("download:vae_decoder")}),
        Step(kind="bundle", params=params, inputs={
            "unet": From("compile:unet"), "vae_decoder": From("compile:vae_decoder")}),
    ]
    recipe = types.SimpleNamespace(
        variant="small", components=(),
        packaging=types.SimpleNamespace(target="iOS16", lower="here"),
        component=lambda name: types.SimpleNamespace(takes=lambda setting: False),
    )
    return Plan(recipe=recipe, steps={step.name: step for step in steps})


def reported(act):
    """Runs an action; {"error": …} is what a user would read of it."""
    def reporting_act(world, source, runs, **more):
        os.environ[RUNS] = runs
        try:
            act(Path(world), source, **more)
        except SDBuildError as error:
            return {"error": error.message, "hint": error.hint, "type": type(error).__name__}
        return {}
    return reporting_act


def _builder(world, source, nbits):
    return Builder(plan(source, nbits), Store(world / "cache"), 10**10)


def _build(world, source, nbits=2, place="mine"):
    builder = _builder(world, source, nbits)
    if nbits == VIRTUAL_BITS:
        builder.virtual_from_bytes = 0
    builder.store.sweep_work()
    with builder.store.in_use("a build"):
        builder.deliver("bundle", lambda r: install(r, builder.store, world / "out" / place))


def _forget(world, source):
    """Drops the record of a step in the middle and builds again."""
    builder = _builder(world, source, 2)
    if key := builder.state("convert:unet").key:
        builder.store.forget(key)
    _build(world, source)


def _collect(world, source):
    collect(Store(world / "cache"))


def _relink(world, source):
    """Puts a U-Net of other bits into the finished bundle."""
    builder = _builder(world, source, 3)
    builder.make_all("compile:unet")
    relinking.relink(world / "out" / "mine", "unet", builder)


def _damage(world, source):
    """Turns a byte of a package in the pool, as a failing disk does."""
    store = Store(world / "cache")
    (record,) = (r for r in store.records() if r.step == "convert:unet")
    path = store.object(record.part("package")[0].digest)
    status = path.stat()
    path.chmod(0o644)
    path.write_bytes(b"?" + path.read_bytes()[1:])
    path.chmod(0o444)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _verify(world, source):
    """Drops what a disk has damaged and makes it again."""
    verify(Store(world / "cache"))
    _build(world, source)


build, forget, gc = reported(_build), reported(_forget), reported(_collect)
relink, damage, mend = reported(_relink), reported(_damage), reported(_verify)


def nothing(folder):
    """Does next to nothing, to see whether it can be watched."""
    (Path(folder) / "new").mkdir()


def execute(command, folder):
    """Becomes another program."""
    os.chdir(folder)
    os.execv(command[0], command)
