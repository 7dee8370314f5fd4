"""The one place where a step is executed: a process of its own, which is watched."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sdbuild.base import errors
from sdbuild.base.errors import OutOfMemory, SDBuildError, StepError
from sdbuild.base.machine import wait
from sdbuild.base.parsing import Malformed, json_file
from sdbuild.base.progress import Channel, Progress
from sdbuild.base.units import size
from sdbuild.engine.memory_budget import hint
from sdbuild.engine.step import LARGEST_MESSAGE
from sdbuild.recipe.project import IMPORT_ROOT
from sdbuild.store.disk import file_error

PATIENT = {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
"""Lets torch's idle threads sleep. Spinning, they cost a busy machine ten times the work."""

_FULL_BYTES = 1 << 20
"""A disk with less room than this is full."""

Watch = Callable[[Progress | None, int], None]
"""Receives how far a running stage is, None before it reports anything, and the most memory that
its process held so far, in bytes."""


def run_step(
    kind: str, job: Mapping[str, Any], work: Path, watch: Watch | None = None
) -> tuple[dict[str, Any], int]:
    """Runs a stage in a process of its own; its facts, and the most memory it held, in bytes.

    Args:
        watch: is called many times a second, in a thread of its own.

    Raises:
        SDBuildError: what the stage raised; OutOfMemory if its process was killed; StepError if it
        died otherwise, with the end of what it printed.
    """
    (work / "job.json").write_text(json.dumps(job), "utf-8")
    with (work / "log").open("wb") as log, Channel() as channel:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sdbuild.steps", kind, str(work), str(channel.writer)],
            stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=(channel.writer,),
            env=os.environ | PATIENT | {"PYTHONPATH": os.pathsep.join(_module_folders())},
        )
        try:
            process.returncode, peak = wait(
                process.pid, (lambda held: watch(channel.read(), held)) if watch else None)
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            if process.stdin is not None:
                process.stdin.close()
    result = _result(work / "result.json")
    if "error" in result:
        raise _raised(result["error"])
    if process.returncode != 0 or "facts" not in result:
        raise _died(kind, process.returncode, peak, job["params"], work / "log")
    return result["facts"], peak


def _module_folders() -> list[str]:
    """Where a step's process finds modules: this package, and what is found from here; never the
    current folder, which may be anybody's."""
    own = str(IMPORT_ROOT)
    return [own, *(folder for folder in sys.path if folder not in ("", own))]


def _result(path: Path) -> dict[str, Any]:
    try:
        return json_file(path, Malformed, most_bytes=LARGEST_MESSAGE,
                         has_infinities=True, has_controls=True)
    except Malformed:  # it died before, or while it wrote
        return {}


def _raised(error: Mapping[str, Any]) -> SDBuildError:
    kind = getattr(errors, error["type"], StepError)
    return kind(error["message"], hint=error["hint"], **error["facts"])


def _died(
    kind: str, code: int, peak: int, params: Mapping[str, Any], log: Path
) -> SDBuildError:
    if code == -signal.SIGKILL:
        return OutOfMemory(
            f"{kind}: its process was killed, most likely for want of memory; "
            f"it held {size(peak)}",
            hint=hint(kind, params), peak_bytes=peak,
        )
    if shutil.disk_usage(log.parent).free < _FULL_BYTES:  # libraries tell it in their own ways
        code = errno.ENOSPC
    if code in (errno.ENOSPC, errno.EDQUOT):
        return file_error(OSError(code, os.strerror(code)), log.parent.parent)
    tail = log.read_text("utf-8", "replace").strip().splitlines()[-15:]
    cause = f"signal {-code}" if code < 0 else f"exit status {code}"
    return StepError(f"{kind}: its process ended with {cause}\n" + "\n".join(tail))
