"""The one place where a step is executed: a process of its own, which is watched.

The two sides write for each other in the step's workspace: the parent `job.json`, the process
`result.json`, the stage's facts or its error.
"""

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
from sdbuild.base.parsing import Malformed, json_file, json_object
from sdbuild.base.progress import Channel, Progress
from sdbuild.base.units import size
from sdbuild.engine.forks import environment, forked
from sdbuild.engine.memory_budget import hint
from sdbuild.engine.stage import Job
from sdbuild.store.disk import file_error, read_file

_JOB = "job.json"
_RESULT = "result.json"
_LARGEST_BYTES = 64 << 20
"""Of a job or a result, which hold what is known of files and tensors by their names."""

_FULL_BYTES = 1 << 20
"""A disk with less room than this is full."""

Watch = Callable[[Progress | None, int], None]
"""Receives how far a running stage is, None before it reports anything, and the most memory that
its process held so far, in bytes."""


def run_step(
    kind: str, job: Mapping[str, Any], work: Path, watch: Watch | None = None, *,
    is_forked: bool = False,
) -> tuple[dict[str, Any], int]:
    """Runs a stage in a process of its own; its facts, and the most memory it held, in bytes.

    Args:
        watch: is called many times a second, in a thread of its own.
        is_forked: the process may be forked from one that has imported the stage's tools, which
            saves seconds and holds some hundred megabytes.

    Raises:
        SDBuildError: what the stage raised; OutOfMemory if its process was killed; StepError if it
        died otherwise, with the end of what it printed.
    """
    (work / _JOB).write_text(json.dumps(job), "utf-8")
    with (work / "log").open("wb") as log, Channel() as channel:
        place = work, channel.writer, log.fileno()
        process = (forked(kind, job["params"], *place) if is_forked else None) \
            or _Started(kind, *place)
        with process:
            code, peak = wait(
                process.pid, (lambda held: watch(channel.read(), held)) if watch else None,
                process.end)
    result = _read_result(work / _RESULT)
    if "error" in result:
        raise _raised(result["error"])
    if code != 0 or "facts" not in result:
        raise _died(kind, code, peak, job["params"], work / "log")
    return result["facts"], peak


class _Started:
    """The process of a step with a Python of its own.

    Left before its end, it is killed.
    """

    def __init__(self, kind: str, work: Path, writer: int, log: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sdbuild.steps", kind, str(work), str(writer)],
            stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=(writer,),
            env=environment(),
        )
        self.pid = self._process.pid

    def __enter__(self) -> _Started:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def end(self) -> tuple[int, int]:
        """Waits for it; its status, and the most memory it had resident, as `os.wait4` says it."""
        _, status, usage = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return status, usage.ru_maxrss


def read_job(work: Path) -> Job:
    """Returns the job in a workspace, for the process of a step.

    Raises:
        StepError: there is none.
    """
    found = json_file(work / _JOB, StepError, most_bytes=_LARGEST_BYTES,
                      has_infinities=True, has_controls=True)
    return _job(found)


def _job(found: Mapping[str, Any]) -> Job:
    return Job(**{
        **found,
        "inputs": {name: Path(path) for name, path in found["inputs"].items()},
        "output": Path(found["output"]),
        "virtual": {name: _job(made) for name, made in found.get("virtual", {}).items()},
    })


def write_result(work: Path, result: Mapping[str, Any]) -> None:
    """Writes what `run_step` reads: `facts` or an `error`."""
    # a path in a message may hold bytes that are not UTF-8
    text = json.dumps(result, default=str, ensure_ascii=False).encode("utf-8", "replace")
    (work / _RESULT).write_bytes(text)


def _read_result(path: Path) -> dict[str, Any]:
    """Returns what a process wrote at its end; nothing if it died before, or while it wrote.

    Raises:
        StoreError: it cannot be read now, which says nothing of the process.
    """
    try:
        return json_object(read_file(path), path.name, Malformed, most_bytes=_LARGEST_BYTES,
                           has_infinities=True, has_controls=True)
    except (FileNotFoundError, Malformed):
        return {}
    except OSError as error:
        raise file_error(error, path) from error


def _raised(error: Mapping[str, Any]) -> SDBuildError:
    kind = getattr(errors, error["type"], StepError)
    return kind(error["message"], hint=error["hint"], **error["facts"])


def _died(
    kind: str, code: int, peak: int, params: Mapping[str, Any], log: Path
) -> SDBuildError:
    if code == -signal.SIGKILL:
        return OutOfMemory(
            f"{kind}: its process was killed, most likely out of memory; it "
            f"used {size(peak)}",
            hint=hint(kind, params), peak_bytes=peak,
        )
    if code == -signal.SIGBUS:
        return StepError(f"{kind}: a file that it read was cut, or its disk does not answer",
                         hint="see that the disks of checkpoint and store are there, then try "
                              "again: finished steps are kept")
    if shutil.disk_usage(log.parent).free < _FULL_BYTES:  # libraries tell it in their own ways
        code = errno.ENOSPC
    if code in (errno.ENOSPC, errno.EDQUOT):
        return file_error(OSError(code, os.strerror(code)), log.parent.parent)
    tail = log.read_text("utf-8", "replace").strip().splitlines()[-15:]
    cause = f"signal {-code}" if code < 0 else f"exit status {code}"
    return StepError(f"{kind}: its process ended with {cause}\n" + "\n".join(tail))
