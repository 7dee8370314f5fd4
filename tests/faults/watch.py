"""Watches every file operation of a process and its children, and may refuse it or kill them all.

The kernel itself asks: a seccomp filter hands each system call that touches files to us before it
runs (`SECCOMP_RET_USER_NOTIF`), whichever language or library made it. No compiler, no tracer, no
root and no patched function is needed; Linux 5.5 or later on x86-64 or 64-bit Arm is.

Just after one call is just before the next, so that a kill before each of them is both.
"""

import ctypes
import errno
import fcntl
import json
import os
import platform
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

X86_64 = {
    "write": 1, "open": 2, "ioctl": 16, "pwrite64": 18, "writev": 20, "sendfile": 40, "flock": 73,
    "fsync": 74, "fdatasync": 75, "truncate": 76, "ftruncate": 77, "rename": 82, "mkdir": 83,
    "rmdir": 84, "creat": 85, "link": 86, "unlink": 87, "symlink": 88, "chmod": 90, "fchmod": 91,
    "utime": 132, "utimes": 235, "openat": 257, "mkdirat": 258, "unlinkat": 263, "renameat": 264,
    "linkat": 265, "symlinkat": 266, "fchmodat": 268, "utimensat": 280, "fallocate": 285,
    "pwritev": 296, "renameat2": 316, "copy_file_range": 326, "openat2": 437, "fchmodat2": 452,
}
AARCH64 = {
    "ioctl": 29, "flock": 32, "mkdirat": 34, "unlinkat": 35, "symlinkat": 36, "linkat": 37,
    "renameat": 38, "truncate": 45, "ftruncate": 46, "fallocate": 47, "fchmod": 52,
    "fchmodat": 53, "openat": 56, "write": 64, "writev": 66, "pwrite64": 68, "pwritev": 70,
    "sendfile": 71, "fsync": 82, "fdatasync": 83, "utimensat": 88, "renameat2": 276,
    "copy_file_range": 285, "openat2": 437, "fchmodat2": 452,
}
TABLES = {"x86_64": (X86_64, 317), "aarch64": (AARCH64, 277)}
"""Numbers of the calls, and of `seccomp` itself. Source: Linux' syscall tables."""

# Where each call has a file: d3p4 is the path at argument 4, relative to the folder of argument 3;
# f0 is an open file.
ARGUMENTS = {
    "open": "p0", "creat": "p0", "openat": "d0p1", "openat2": "d0p1", "mkdir": "p0", "rmdir": "p0",
    "mkdirat": "d0p1", "unlink": "p0", "unlinkat": "d0p1", "rename": "p0 p1", "link": "p0 p1",
    "renameat": "d0p1 d2p3", "renameat2": "d0p1 d2p3", "linkat": "d0p1 d2p3", "symlink": "p1",
    "symlinkat": "d1p2", "chmod": "p0", "fchmodat": "d0p1", "fchmodat2": "d0p1", "utime": "p0",
    "utimes": "p0", "utimensat": "d0p1", "truncate": "p0", "sendfile": "f0 f1",
    "copy_file_range": "f2 f0",
}
PLAIN = {
    "creat": "open", "openat": "open", "openat2": "open", "mkdirat": "mkdir", "linkat": "link",
    "renameat": "rename", "renameat2": "rename", "symlinkat": "symlink", "unlinkat": "unlink",
    "fchmod": "chmod", "fchmodat": "chmod", "fchmodat2": "chmod", "utimes": "utime",
    "utimensat": "utime", "ftruncate": "truncate", "fdatasync": "fsync", "pwrite64": "write",
    "writev": "write", "pwritev": "write", "sendfile": "copy", "copy_file_range": "copy",
    "fallocate": "truncate",
}
FICLONE = 0x40049409
AT_FDCWD, AT_REMOVEDIR, RENAME_EXCHANGE = -100, 0x200, 2
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
NOTIF, ANSWER = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
RECV, SEND, CONTINUE = 0xC0502100, 0xC0182101, 1
SET_FILTER, NEW_LISTENER, NO_NEW_PRIVS = 1, 8, 38
USER_NOTIF, ALLOW = 0x7FC00000, 0x7FFF0000

KILL, HALF = "kill", "half"
"""Answers beside None (go on) and an errno: kill all; do half of a write, then kill all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that is about to run. `paths` are absolute; `flags` of open and rename; of a write
    `content` at `offset`; of truncate the size as `offset`; `times` in ns for utime."""

    name: str
    paths: tuple[str, ...]
    pid: int
    flags: int = 0
    offset: int = 0
    content: bytes = b""
    handle: int = -1
    mode: int = 0
    mtime_ns: int | None = None

    @property
    def changes(self):
        """Whether it changes what the disk holds, or would after a crash."""
        return self.name not in ("read", "flock")

    def __str__(self):
        return f"{self.name} {' '.join(self.paths)}"


@dataclass(slots=True, kw_only=True)
class Run:
    """The result of a run: its exit status, its value (or None), its output, its calls."""

    pid: int
    status: int
    result: object
    printed: str
    calls: list = field(default_factory=list)


def why_not():
    """Returns the reason why nothing can be watched here; empty if it can."""
    if not sys.platform.startswith("linux") or platform.machine() not in TABLES:
        return "needs Linux on x86-64 or 64-bit Arm"
    refusal = "this kernel or container lets no process watch another's calls"
    done = subprocess.run([sys.executable, "-c", "import watch; watch.install()"],
                          cwd=Path(__file__).parent, capture_output=True, text=True)
    if done.returncode:
        return f"{refusal}: {(done.stderr.strip().splitlines() or [''])[-1]}"
    with tempfile.TemporaryDirectory() as folder, Watcher(Path(folder).resolve()) as watcher:
        run = watcher.run("nothing", {"folder": str(watcher.root)}, lambda call: None)
    return "" if [call.name for call in run.calls] == ["mkdir"] else refusal


class Watcher:
    """Runs the functions of `worker.py`, each in a fork of one process, and watches `root`."""

    def __init__(self, root):
        self.root = str(root)
        self.socket, theirs = socket.socketpair()
        self.server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("worker.py")), str(theirs.fileno())],
            pass_fds=[theirs.fileno()], env=os.environ | {"PYTHONPATH": os.pathsep.join(
                [str(Path(__file__).parents[2]), str(Path(__file__).parent)])},
        )
        theirs.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        self.server.wait()

    def run(self, function, arguments, decide=None):
        """Runs a function of the worker; `decide` is asked before each call on files of `root`.

        Without it nothing is watched.
        """
        request = json.dumps([function, arguments, decide is not None]).encode()
        self.socket.sendall(struct.pack("=I", len(request)) + request)
        head, handles, _, _ = socket.recv_fds(self.socket, 4, 2)
        (pid,), output = struct.unpack("=I", head), handles[0]
        calls = []
        try:
            if decide:
                self._serve(handles[1], pid, decide, calls)
            status, size = struct.unpack("=iI", exactly(self.socket, 8))
            result = json.loads(exactly(self.socket, size)) if size else None
            _kill_group(pid)
            printed = os.pread(output, 1 << 20, 0).decode(errors="replace")
        finally:
            for handle in handles:
                os.close(handle)
        return Run(pid=pid, status=status, result=result, printed=printed, calls=calls)

    def _serve(self, listener, pid, decide, calls):
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(self.socket, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if ready.get(listener, 0) & select.POLLIN:
                self._answer(listener, pid, decide, calls)
            elif self.socket.fileno() in ready:
                return

    def _answer(self, listener, pid, decide, calls):
        buffer = bytearray(NOTIF.size)
        try:
            fcntl.ioctl(listener, RECV, buffer)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # it was killed meanwhile
                return
            raise
        number, task, _, call_number, _, _, *arguments = NOTIF.unpack(buffer)
        answer = None
        try:
            call = _described(task, call_number, arguments)
        except (OSError, ValueError):  # it was killed meanwhile, or the path is not one
            call = None
        if call and any(p == self.root or p.startswith(f"{self.root}/") for p in call.paths):
            calls.append(call)
            answer = decide(call)
        if answer == HALF:
            _half(call)
        if answer in (KILL, HALF):
            _kill_group(pid)
            return
        reply = (number, 0, 0, CONTINUE) if answer is None else (number, 0, -answer, 0)
        try:
            fcntl.ioctl(listener, SEND, ANSWER.pack(*reply))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise


def exactly(connection, size):
    found = b""
    while len(found) < size:
        part = connection.recv(size - len(found))
        if not part:
            raise EOFError("the watched process's server ended")
        found += part
    return found


def _kill_group(pid):
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _described(task, number, arguments):
    """The call, or None if it is no operation on files."""
    table, _ = TABLES[platform.machine()]
    name = next(name for name, found in table.items() if found == number)
    paths = tuple(_place(task, arguments, spec)
                  for spec in ARGUMENTS.get(name, "f0").split())
    plain = PLAIN.get(name, name)
    more = {}
    if plain == "open":
        at = 1 if name == "open" else 2
        flags = WRITES if name == "creat" else arguments[at]
        if name == "openat2":
            (flags,) = struct.unpack("=Q", _memory(task, arguments[2], 8))
        more = {"flags": flags & 0xFFFFFFFF}
        plain = "open" if flags & WRITES else "read"
    elif name == "ioctl":
        if arguments[1] & 0xFFFFFFFF != FICLONE:
            return None
        paths = (*paths, _of_handle(task, arguments[2]))
    elif name == "renameat2":
        more = {"flags": arguments[4]}
    elif name == "unlinkat" and arguments[2] & AT_REMOVEDIR:
        plain = "rmdir"
    elif plain == "write":
        more = _write(task, name, arguments)
    elif name in ("truncate", "ftruncate"):
        more = {"offset": arguments[1]}
    elif plain == "chmod":
        more = {"mode": arguments[2 if name.startswith("fchmodat") else 1]}
    elif name == "utimensat":
        times = struct.unpack("=4q", _memory(task, arguments[2], 32)) if arguments[2] else None
        more = {"mtime_ns": times[2] * 10**9 + times[3] if times else None}
    return Call(name=plain, paths=paths, pid=task, **more)


def _write(task, name, arguments):
    if name in ("writev", "pwritev"):
        vectors = _memory(task, arguments[1], 16 * arguments[2])
        content = b"".join(_memory(task, *v) for v in struct.iter_unpack("=QQ", vectors))
    else:
        content = _memory(task, arguments[1], arguments[2])
    handle = arguments[0] & 0xFFFFFFFF
    if name.startswith("pwrite"):
        offset = arguments[3]
    else:
        info = Path(f"/proc/{task}/fdinfo/{handle}").read_text()
        offset = int(info.split("pos:")[1].split()[0])
        if int(info.split("flags:")[1].split()[0], 8) & os.O_APPEND:
            offset = Path(f"/proc/{task}/fd/{handle}").stat().st_size
    return {"content": content, "offset": offset, "handle": handle}


def _half(call):
    """Writes half of what a call is about to write."""
    handle = os.open(f"/proc/{call.pid}/fd/{call.handle}", os.O_WRONLY)
    os.pwrite(handle, call.content[:len(call.content) // 2], call.offset)
    os.close(handle)


def _place(task, arguments, spec):
    if spec[0] == "f":
        return _of_handle(task, arguments[int(spec[1])])
    at = int(spec[-1])
    folder = ctypes.c_int(arguments[int(spec[1])]).value if spec[0] == "d" else AT_FDCWD
    if spec == "d0p1" and not arguments[at]:  # futimens
        return _of_handle(task, folder)
    path = _text(task, arguments[at])
    base = (str(Path(f"/proc/{task}/cwd").readlink()) if folder == AT_FDCWD
            else _of_handle(task, folder))
    return os.path.normpath(Path(base) / path)


def _of_handle(task, handle):
    return str(Path(f"/proc/{task}/fd/{ctypes.c_int(handle & 0xFFFFFFFF).value}").readlink())


def _memory(task, address, size):
    with Path(f"/proc/{task}/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        return memory.read(size)


def _text(task, address):
    found = b""
    while b"\0" not in found:
        start = address + len(found)
        found += _memory(task, start, 4096 - start % 4096)  # the next page may not be there
    return os.fsdecode(found.partition(b"\0")[0])


def install():
    """Has this process and its children be watched; the handle through which that is done."""
    table, seccomp = TABLES[platform.machine()]
    numbers = sorted(table.values())
    program = [(0x20, 0, 0, 0)]  # load the call's number
    for place, number in enumerate(numbers):
        program.append((0x15, len(numbers) - place, 0, number))
    program += [(0x06, 0, 0, ALLOW), (0x06, 0, 0, USER_NOTIF)]
    code = b"".join(struct.pack("=HBBI", *line) for line in program)
    held = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("@HP", len(program), ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    handle = libc.syscall(seccomp, SET_FILTER, NEW_LISTENER, head)
    if handle < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return handle
