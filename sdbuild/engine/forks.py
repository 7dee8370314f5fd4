"""Processes of steps that are forked from one that has imported torch and its like.

Those imports take longer than the trace of a small network. One process makes them for all steps
that a process builds, and each step is a fork of it: as alone as with a Python of its own, with its
own peak of memory. It computes nothing, has no threads, and ends with whoever started it, or when
it has had nothing to do for some seconds (docs/decisions/0046-forked-steps.md).
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from sdbuild.base.machine import PATIENT
from sdbuild.base.parsing import Fields, Malformed, json_object
from sdbuild.engine.stage import stage
from sdbuild.recipe.project import IMPORT_ROOT

SHARED = "SDBUILD_FORKS"
"""The variable with the address of a process that stands already; tests share one."""

_OWN = (SHARED, "SDBUILD_CACHE", "__DASK_PARENT_PID")
"""Variables of one process, which mean nothing to a step: it knows its workspace alone."""

LARGEST_BYTES = 1 << 17
"""Of a message between the two: a step, and the environment."""

_IDLE_S = 10
_CREDENTIALS = struct.Struct("3i")


class Forked:
    """The process of a step that was forked; `channel` says its number, and later how it ended.

    Left before its end, it is killed.

    Raises:
        Malformed: there is no such process.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self.pid = self._told().integer("pid", low=2)

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._channel.close()

    def end(self) -> tuple[int, int]:
        """Waits for it; its status, and the most memory it had resident, as `os.wait4` says it."""
        try:
            found = self._told()
            return found.integer("status", low=0), found.integer("max_rss", low=0)
        except Malformed:  # whoever should say so was killed as well
            return signal.SIGKILL, 0

    def _told(self) -> Fields:
        return Fields(json_object(self._channel.recv(LARGEST_BYTES), "a process", Malformed),
                      "a process", Malformed)


class Forks:
    """The process that steps are forked from, started when it is first needed.

    Args:
        idle_s: the seconds without work after which it ends.
    """

    def __init__(self, idle_s: int = _IDLE_S) -> None:
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._name = self._address = b""

    def share(self, name: str) -> None:
        """Uses one process with all processes of this machine that share the name, whichever starts
        it; the others start another if that one ends. None but this user's is used."""
        with self._lock:
            self._name = self._address = b"\0" + name.encode()  # no file, as in `start`

    def connect(self) -> socket.socket:
        """Returns a connection to it.

        Raises:
            OSError: it cannot be started.
        """
        with self._lock:
            with suppress(OSError):  # none was started yet, or it has ended
                return _connected(self._address)
            with suppress(OSError):  # somebody else has just started the one of this name
                self.start()
            return _connected(self._address)

    def start(self) -> bytes:
        """Starts it; its address."""
        self.close()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            # without a name the system finds one, which is no file and needs no cleaning up
            listener.bind(self._name)
            listener.listen()
            self._address = listener.getsockname()
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "sdbuild.steps._forks", str(listener.fileno()),
                 str(self._idle_s)], pass_fds=(listener.fileno(),), env=environment(),
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self._address

    def close(self) -> None:
        """Ends it. Steps that it forked go on."""
        if self._process is not None:
            with self._process:
                self._process.terminate()


_FORKS = Forks()
atexit.register(_FORKS.close)


_PRIVATE: set[str] = set()


def share(name: str, private: str) -> None:
    """Has steps forked from one process for all that share the name, as `Forks.share` does.

    Args:
        private: a folder of this process in which steps find no modules, as the others have none.
    """
    _PRIVATE.add(private)
    _FORKS.share(name)


def forked(
    kind: str, params: Mapping[str, Any], work: Path, writer: int, log: int,
) -> Forked | None:
    """Returns the process of a step, forked; None where the system has no safe way to, or the step
    imports nothing that takes long."""
    if sys.platform != "linux" or "torch" not in (tools := stage(kind).tools_of(params)):
        return None
    request = {"kind": kind, "work": str(work), "tools": tools, "folder": str(Path.cwd()),
               "environment": environment()}
    shared = os.environ.get(SHARED)
    return (_asked(lambda: _connected(bytes.fromhex(shared)), request, writer, log)
            if shared else None) or _asked(_FORKS.connect, request, writer, log)


def _asked(
    connect: Callable[[], socket.socket], request: Mapping[str, Any], *files: int,
) -> Forked | None:
    """Returns the process that a connection asks for; None where it is refused, or nobody is
    there."""
    with ExitStack() as unless_forked:
        try:
            channel = unless_forked.enter_context(connect())
            socket.send_fds(channel, [json.dumps(request).encode()], files)
            found = Forked(channel)
        except (OSError, ValueError, Malformed):  # ValueError: what was given is no address
            return None
        unless_forked.pop_all()
        return found


def environment() -> dict[str, str]:
    """Returns the environment of steps, in which they find this package, and what is found from
    here; never the current folder, which may be anybody's."""
    own = str(IMPORT_ROOT)
    folders = [own, *(folder for folder in sys.path if folder not in ("", own, *_PRIVATE))]
    found = os.environ | PATIENT | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(folders))}
    return {name: value for name, value in found.items() if name not in _OWN}


def is_ours(connection: socket.socket) -> bool:
    """Whether the process at the other end is of the same user."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return _CREDENTIALS.unpack(found)[1] == os.getuid()


def _connected(address: bytes) -> socket.socket:
    with ExitStack() as unless_connected:
        connection = unless_connected.enter_context(
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        connection.connect(address)
        if not is_ours(connection):
            raise PermissionError("a process of another user answers")
        unless_connected.pop_all()
        return connection
