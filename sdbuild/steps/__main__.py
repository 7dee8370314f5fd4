"""The process of a step: `python -m sdbuild.steps KIND WORKSPACE WRITER`.

What it reads and writes: `sdbuild.engine.process`. How far it is goes to the file descriptor
WRITER, the pipe of a `Channel`. Standard input is a pipe from the parent: when it closes the parent
is gone, and so is the reason to go on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

from sdbuild.base.errors import OutOfMemory, SDBuildError
from sdbuild.base.garbage import leave
from sdbuild.base.progress import listening, sender
from sdbuild.base.versions import NETWORKS, package_missing
from sdbuild.engine.memory_budget import hint
from sdbuild.engine.process import read_job, write_result
from sdbuild.engine.stage import Job, stage
from sdbuild.store.disk import file_error


def main(kind: str, work: Path, writer: int) -> int:
    """Runs one stage; the exit status: the system's `errno` if the workspace cannot be used."""
    try:
        with listening(sender(writer)):
            return _main(kind, work)
    except OSError as error:
        message = f"{file_error(error, Path(error.filename or work))}\n"
        with contextlib.suppress(OSError):  # the log may be on a full disk as well
            os.write(sys.stderr.fileno(), message.encode(errors="backslashreplace"))
        return error.errno or 1


def _main(kind: str, work: Path) -> int:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = read_job(work)
    result = _result(kind, job)
    if "error" in result:
        shutil.rmtree(job.output, ignore_errors=True)  # on a full disk, room to say so
    write_result(work, result)
    return 1 if "error" in result else 0


def _result(kind: str, job: Job) -> dict[str, Any]:
    """Returns the facts of a stage, or its error."""
    try:
        return {"facts": stage(kind).run(job) or {}}
    except SDBuildError as error:
        found = error
    except MemoryError:
        found = OutOfMemory(f"{kind}: the system gave no more memory",
                            hint=hint(kind, job.params))
    except ModuleNotFoundError as error:
        found = _missing(kind, error)
    except OSError as error:  # a full disk, most likely: what a stage expects, it handles itself
        found = file_error(error, Path(error.filename or job.output))
    return {"error": {
        "type": type(found).__name__, "message": found.message, "hint": found.hint,
        "facts": found.facts,
    }}


def _missing(kind: str, error: ModuleNotFoundError) -> SDBuildError:
    """Returns the error of a package that is not installed; a module of ours is one of ours."""
    package = (error.name or "").partition(".")[0]
    if package not in NETWORKS:
        raise error
    return package_missing(kind, package)


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # not through sys.stdin, whose lock is held at exit
    os._exit(1)


if __name__ == "__main__":
    leave(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
