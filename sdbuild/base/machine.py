"""Memory and processors of this machine, and the peak memory of processes."""

from __future__ import annotations

import ctypes
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

_MOST_STEPS = 4  # of a bundle's chains of steps hardly more are left after the first
PATIENT = {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
"""Lets torch's idle threads sleep. Spinning, they cost a busy machine ten times the work."""

_EVERY_S = 0.02
_CGROUPS = Path("/sys/fs/cgroup")
_LEAST_MARGIN = 500_000_000
_ANONYMOUS = re.compile(rb"^RssAnon:\s+(\d+) kB$", re.MULTILINE)
_RUSAGE_V4, _WORDS, _MOST_FOOTPRINT = 4, 38, 30
"""`RUSAGE_INFO_V4` of Darwin's sys/resource.h, the size of `struct rusage_info_v4` in words of 64
bits, and the place of its `ri_lifetime_max_phys_footprint`."""


_M_MMAP_THRESHOLD = -3
"""Of glibc's malloc.h."""

_LARGE_BYTES = 1 << 20


def free_at_once() -> None:
    """Makes the C library return large blocks to the system as soon as they are freed.

    glibc keeps those of up to 32 MB for later, among small ones that live longer: passes over a
    network of 866 million parameters held twice as much as they used.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc alone has it
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


class PeakMemory:
    """Watches the anonymous memory of a process: what cannot be read again from a file.

    Mapped weights and libraries are left out, for the system takes those pages back when it needs
    them: RssAnon on Linux, the physical footprint on a Mac. Where neither can be read, the peak is
    of all resident memory.

    Args:
        look: is called with the peak so far, many times a second, in a thread of its own.
    """

    def __init__(self, pid: int, look: Callable[[int], None] | None = None) -> None:
        self._look = look
        self._read = _footprint(pid) if sys.platform == "darwin" else _anonymous(pid)
        self._peak = 0
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while (found := self._read()) is not None:
            self._peak = max(self._peak, found)
            if self._look is not None:
                self._look(self._peak)
            if self._is_done.wait(_EVERY_S):
                return

    def stop(self) -> None:
        """Stops watching."""
        self._is_done.set()
        self._thread.join()

    def peak_bytes(self, max_rss: int) -> int:
        """Returns the peak; `max_rss` is what `os.wait4` said of the process, in the system's
        unit."""
        self.stop()
        return self._peak or max_rss * (1 if sys.platform == "darwin" else 1024)


def _anonymous(pid: int) -> Callable[[], int | None]:
    """Reads the anonymous memory of a process on Linux; None when it is gone."""
    status = Path(f"/proc/{pid}/status")

    def read() -> int | None:
        try:
            found = _ANONYMOUS.search(status.read_bytes())
        except OSError:  # it has just gone, or this is another system
            return None
        return int(found[1]) * 1024 if found else 0
    return read


def _footprint(pid: int) -> Callable[[], int | None]:
    """Reads the largest physical footprint that a process had so far on a Mac; None when it is
    gone."""
    call = getattr(ctypes.CDLL(None), "proc_pid_rusage", None)

    def read() -> int | None:
        found = (ctypes.c_uint64 * _WORDS)()
        if call is None or call(pid, _RUSAGE_V4, ctypes.byref(found)) != 0:
            return None
        return found[_MOST_FOOTPRINT]
    return read


def wait(
    pid: int, look: Callable[[int], None] | None = None,
    end: Callable[[], tuple[int, int]] | None = None,
) -> tuple[int, int]:
    """Waits for a process; its exit code as `subprocess` gives it, and its peak memory in bytes.

    Args:
        look: is called meanwhile with the peak so far, in a thread of its own.
        end: waits for a process that is no child of this one, and returns what `os.wait4` said of
            it: its status, and its `ru_maxrss`.
    """
    watch = PeakMemory(pid, look)
    try:
        status, max_rss = end() if end is not None else _child_end(pid)
    finally:
        watch.stop()
    return os.waitstatus_to_exitcode(status), watch.peak_bytes(max_rss)


def _child_end(pid: int) -> tuple[int, int]:
    _, status, usage = os.wait4(pid, 0)
    return status, usage.ru_maxrss


def machine_bytes() -> int:
    """Returns what this process and its children may hold: physical memory, or a control group's
    limit."""
    return min((os.sysconf("SC_PAGESIZE") * os.sysconf("SC_PHYS_PAGES"), *_limits()))


def usable_bytes() -> int:
    """Returns what of it a build may plan with: an eighth, at least half a gigabyte, is left to
    others.

    The system, mapped libraries and the files that a step reads and writes need some too.
    """
    total = machine_bytes()
    return max(total - max(total // 8, _LEAST_MARGIN), total // 2)


def processors() -> int:
    """Returns how many of the machine's processors this process may use."""
    has_mask = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_mask else os.cpu_count() or 1


def steps_at_a_time() -> int:
    """Returns how many steps run at a time, unless the command line says: one for each processor,
    four at most. Those that the memory has no room for wait."""
    return min(processors(), _MOST_STEPS)


def _limits() -> Iterator[int]:
    """Yields the limits of the control groups that this process is in, of version 1 and 2, in
    bytes.

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
