"""A recipe's steps, run in the process of a test: torch and coremltools are imported once."""

import contextlib
import fcntl
import functools
import re
import shutil

from sdbuild.base.digest import digest, digest_file
from sdbuild.engine.plan import plan
from sdbuild.engine.stage import Job, stage


class Steps:
    """The artifacts of a recipe, each made when it is first asked for.

    All tests of a run share what is made of the same content, in whichever process.
    """

    def __init__(self, recipe, folder):
        self.plan = plan(recipe)
        self.folder = next(
            (above / "artifacts" for above in folder.parents
             if re.fullmatch(r"pytest-\d+", above.name)), folder)
        self.folder.mkdir(exist_ok=True)

    def __getitem__(self, name):
        """The folder with the artifact of a step."""
        step = self.plan.steps[name]
        inputs = {key: self[source.step] / source.path for key, source in step.inputs.items()}
        places = step.source.places if step.source else ()
        key = digest("test", [name, dict(step.params), list(step.reads), places,
                              {key: content(path) for key, path in inputs.items()}])
        if name == "bundle":
            (self.folder / "provenance.json").write_text("[]")
            inputs["provenance"] = self.folder / "provenance.json"
        output = self.folder / f"{name.replace(':', '-').replace('/', '-')}-{key[:16]}"
        with alone(output.with_suffix(".lock")):
            made = output.with_suffix(".made")
            if not made.exists():
                shutil.rmtree(output, ignore_errors=True)  # of a stage that failed
                output.mkdir()
                stage(step.kind).run(Job(
                    params=step.params, inputs=inputs, output=output, reads=step.reads,
                    places=places))
                made.touch()
        return output


@functools.cache
def content(path):
    """The digest of a file or folder; cached, as artifacts never change."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return digest("content", [(p.relative_to(path).as_posix(), digest_file(p)) for p in files])


@contextlib.contextmanager
def alone(lock):
    """Waits until no other process has the lock."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
