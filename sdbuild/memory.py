"""What this machine gives, and the most memory that a process held while it ran."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_EVERY_S = 0.02
_CGROUPS = Path("/sys/fs/cgroup")
_LEAST_MARGIN = 500_000_000
_ANONYMOUS = re.compile(rb"^RssAnon:\s+(\d+) kB$", re.MULTILINE)


class PeakMemory:
    """Watches the anonymous memory of a process: what cannot be read again from a file.

    Mapped weights and libraries are left out, for the system takes those pages back when it needs
    them. Where it does not tell them apart (macOS), the peak is of all resident memory.
    """

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._peak = 0
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while self._status.exists():
            self._look()
            if self._is_done.wait(_EVERY_S):
                return

    def _look(self) -> None:
        try:
            found = _ANONYMOUS.search(self._status.read_bytes())
        except OSError:  # the process has just gone
            return
        if found:
            self._peak = max(self._peak, int(found[1]) * 1024)

    def peak_bytes(self, max_rss: int) -> int:
        """The peak; `max_rss` is what `os.wait4` said of the process, in the system's unit."""
        self._is_done.set()
        self._thread.join()
        return self._peak or max_rss * (1 if sys.platform == "darwin" else 1024)


def wait(pid: int) -> tuple[int, int]:
    """Waits for a child; its exit code as `subprocess` gives it, and its peak memory in bytes."""
    watch = PeakMemory(pid)
    _, status, usage = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), watch.peak_bytes(usage.ru_maxrss)


def machine_bytes() -> int:
    """What this process and its children may hold: physical memory, or a control group's limit."""
    return min((os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_limits()))


def usable_bytes() -> int:
    """What of it a build may plan with: an eighth, at least half a gigabyte, is left to others.

    The system, mapped libraries and the files that a step reads and writes need some too.
    """
    total = machine_bytes()
    return max(total - max(total // 8, _LEAST_MARGIN), total // 2)


def processors() -> int:
    """How many of the machine's processors this process may use."""
    has_mask = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_mask else os.cpu_count() or 1


def _limits() -> Iterator[int]:
    """The limits of the control groups that this process is in, of version 1 and 2, in bytes.

    A container may show its own group as the root and name it by the host's path, so the root is
    looked at whatever the path is.
    """
    try:
        groups = Path("/proc/self/cgroup").read_text("ascii").splitlines()
    except OSError:  # not Linux
        return
    for line in groups:
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            mount, file = _CGROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            mount, file = _CGROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        path = PurePosixPath(name.lstrip("/"))
        for group in (path, *path.parents):
            try:
                yield int((mount / group / file).read_text("ascii"))
            except (OSError, ValueError):  # not mounted here, or "max"
                continue
