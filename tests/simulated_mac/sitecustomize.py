"""Makes a process of Python take itself for one on a Mac, as far as our code can see
(`docs/decisions/0028-macs.md`).

`pytest --simulate-mac` calls `pretend`, and puts this folder on the `PYTHONPATH` of all that tests
start: Python imports a `sitecustomize` before anything else. Libraries still see Linux, for torch
and coremltools would look for parts that only their builds for a Mac have.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import multiprocessing
import os
import resource
import sys
import types
from pathlib import Path

MISSING = (
    "copy_file_range", "eventfd", "fdatasync", "getrandom", "memfd_create", "pidfd_open", "pipe2",
    "posix_fadvise", "posix_fallocate", "sched_getaffinity", "sched_setaffinity", "splice",
)
"""Functions of `os` that Python does not have on a Mac."""
F_FULLFSYNC = 51
"""Of Darwin's sys/fcntl.h. Linux answers it with EINVAL, as network file systems may on a Mac."""
LINUX_ONLY = ("/proc/", "/sys/")
LEFT_BEHIND = (".DS_Store", "._.DS_Store", ".localized")
"""Files that the Finder adds to folders, with the AppleDouble file of one for disks without
attributes."""


class MacSys(types.ModuleType):
    """The module `sys` with the platform of a Mac; all else is read from and set on the real one.
    """

    def __getattr__(self, name):
        return getattr(sys, name)

    def __setattr__(self, name, value):
        if name == "platform":
            super().__setattr__(name, value)
        else:
            setattr(sys, name, value)


MAC_SYS = MacSys("sys")
MAC_SYS.platform = "darwin"


def pretend():
    """Changes what our modules see of this process, those that are imported already too."""
    builtins.__import__ = import_mac_sys
    for name, module in list(sys.modules.items()):
        if is_ours(name) and hasattr(module, "sys"):
            module.sys = MAC_SYS
    for name in MISSING:
        if hasattr(os, name):
            delattr(os, name)
    fcntl.F_FULLFSYNC = F_FULLFSYNC
    os.wait4 = wait4
    multiprocessing.set_start_method("spawn", force=True)
    sys.addaudithook(hide_linux)


def import_mac_sys(name, globals=None, *rest, _import=builtins.__import__, **named):
    """The `import` statement, which gives `MAC_SYS` to our modules."""
    if name == "sys" and is_ours((globals or {}).get("__package__")):
        return MAC_SYS
    return _import(name, globals, *rest, **named)


def hide_linux(event, arguments):
    """An audit hook, which lets our code find no folder that only Linux has."""
    if event in ("open", "os.listdir", "os.scandir") and str(arguments[0]).startswith(LINUX_ONLY) \
            and is_called_by_us():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), arguments[0])


def wait4(pid, options, _wait4=os.wait4):
    """`os.wait4`, which counts memory in bytes."""
    pid, status, usage = _wait4(pid, options)
    return pid, status, resource.struct_rusage((*usage[:2], usage.ru_maxrss * 1024, *usage[3:]))


def visit(path, *rest, _mkdir=os.mkdir, **options):
    """`os.mkdir`, which lets the Finder look at each folder that our code makes."""
    _mkdir(path, *rest, **options)
    if is_called_by_us():
        for name in LEFT_BEHIND:
            Path(path, name).write_bytes(b"\0\5\x16\7Mac OS X")


def is_called_by_us():
    """Whether our code called the function that asks, itself or through the standard library."""
    frame = sys._getframe(1)
    while frame is not None:
        package = frame.f_globals.get("__package__") or frame.f_globals.get("__name__", "")
        name = package.partition(".")[0]
        if frame.f_globals is not globals() and name not in sys.stdlib_module_names:
            return is_ours(name)
        frame = frame.f_back
    return False


def is_ours(module):
    return (module or "").partition(".")[0] == "sdbuild"


if __name__ == "sitecustomize":  # a process that tests start
    pretend()
    os.mkdir = visit
