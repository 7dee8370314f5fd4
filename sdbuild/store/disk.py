"""The few functions through which the store and its bundles are written, whole or not at all.

Everything that changes a store goes through `write_file`, `take`, `give`, `drop`, `sweep`, `touch`
and `exchange`, so that what a kill or a full disk does at any of them can be looked at in one
place.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sdbuild.base.digest import check_openable
from sdbuild.base.errors import StoreError

TAKEN_NS = 946_684_800 * 10**9
"""The modification time of every file in the pool, 1 January 2000: another one means that it was
written to since, through whatever link, and must be read again before it is trusted."""

_FICLONE = 0x40049409
"""`ioctl` of Linux that makes a file share another's blocks (btrfs, XFS, bcachefs, overlay…)."""
_FIEMAP = 0xC020660B
"""`ioctl` of Linux that lists a file's extents; `_EXTENTS` of them at a time."""
_EXTENTS = 512
_HEADER, _EXTENT = struct.Struct("=QQIIII"), struct.Struct("=QQQQQIIII")
_LAST, _SHARED = 0x1, 0x2000
_FULLSYNC = getattr(fcntl, "F_FULLFSYNC", None)
"""`fcntl` of Darwin that has a disk write what it holds; its `fsync` leaves it in the disk."""
_HERE, _SWAP = -100, 2
"""`AT_FDCWD` and `RENAME_EXCHANGE` of Linux; `RENAME_SWAP` of Darwin is 2 as well."""
_OTHER_DISK = " (sdbuild gc), or put the store elsewhere with cache=PATH"
_CANNOT = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""Errors of file systems without modes, without settable times, or without `fsync` of folders."""


def write_file(path: Path, content: bytes) -> None:
    """Writes a small file whole or not at all: under another name, synced, renamed. All users may
    read it.
    """
    make_folder(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            with contextlib.suppress(OSError):  # on a file system without modes
                os.fchmod(handle, 0o644)
            file.write(content)
            file.flush()
            _sync(file.fileno())
        Path(temporary).rename(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_file(path: Path) -> bytes:
    """Returns the bytes of a file of the store; nothing is waited for.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    check_openable(path)
    return path.read_bytes()


def ingest(path: Path, target: Path) -> None:
    """Moves a file into the pool: synced, read-only, with the time of what was taken in."""
    make_folder(target.parent)
    with path.open("rb") as file:
        _sync(file.fileno())
    _seal(path)
    path.rename(target)
    sync_folder(target.parent)


def link_out(source: Path, target: Path) -> None:
    """Puts the bytes of `source` at `target`, where nothing is: as a clone, else a link, else a
    copy.

    A clone shares the blocks and nothing else, so damage to one leaves the other whole; a hard
    link is the same file; a copy takes its room again (`docs/decisions/0011-clones-first.md`).
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if _clone(source, target):
            _seal(target)
        else:
            _link(source, target)
    except FileExistsError:
        raise  # the file there is not ours
    except OSError:
        with contextlib.suppress(OSError):
            target.unlink()
        raise


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError:  # another disk, too many links, or a file system without any
        shutil.copyfile(source, target)
        _seal(target)


def _clone(source: Path, target: Path) -> bool:
    """Makes `target` share the blocks of `source`, and says whether the file system does so."""
    if sys.platform == "darwin":
        return _call("clonefile", os.fsencode(source), os.fsencode(target), 0)
    if not sys.platform.startswith("linux"):
        return False
    with source.open("rb") as old, target.open("xb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
        except OSError:
            target.unlink()
            return False
    return True


def _seal(path: Path) -> None:
    """Makes a file read-only and gives it the time of the pool's files, where they have such."""
    for change in (lambda: path.chmod(0o444), lambda: os.utime(path, ns=(TAKEN_NS, TAKEN_NS))):
        try:
            change()
        except OSError as error:
            if error.errno not in _CANNOT:
                raise


def drop(path: Path, *, is_damaged: bool = False) -> bool:
    """Removes a file of the store; says whether there was one.

    The time of a damaged one is changed first: hard links to it in bundles are damaged too, and
    are read again.
    """
    try:
        if is_damaged:
            os.utime(path, follow_symlinks=False)
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def sweep(path: Path) -> None:
    """Removes what was left over or worked in, as far as it goes."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def exchange(new: Path, place: Path, old: Path) -> None:
    """Puts the folder `new`, synced, in the place of what stands there, which goes to `new`.

    That is one operation of the system. Where it has none they are two: what stands there goes to
    `old`, and comes back if the second fails.
    """
    sync_tree(new)
    if not place.exists():
        new.rename(place)
    elif not _swap(new, place):
        place.rename(old)
        try:
            new.rename(place)
        except BaseException:
            old.rename(place)
            raise
    sync_folder(place.parent)


def _swap(one: Path, other: Path) -> bool:
    """Lets two folders change their names at once, and says whether the system does so.

    Source:
        `renameat2` with RENAME_EXCHANGE in Linux' manual, `renamex_np` with RENAME_SWAP in
        Darwin's.
    """
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform == "darwin":
        return _call("renamex_np", *names, _SWAP)
    return _call("renameat2", _HERE, names[0], _HERE, names[1], _SWAP)


def _call(name: str, *arguments: int | bytes) -> bool:
    """Calls a function of the C library; says whether it is there and succeeded."""
    function = getattr(ctypes.CDLL(None), name, None)
    return function is not None and function(*arguments) == 0


def touch(path: Path) -> None:
    """Sets a file's times to now, if it may be."""
    with contextlib.suppress(OSError):
        os.utime(path, follow_symlinks=False)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, where they are not there, so that they last."""
    if not folder.is_dir():
        make_folder(folder.parent)
        try:
            folder.mkdir(exist_ok=True)
        except FileExistsError as error:  # a file
            raise NotADirectoryError(
                errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error
        sync_folder(folder.parent)


def sync_tree(folder: Path) -> None:
    """Makes everything in a folder last, before something else says that it is there."""
    for path in folder.iterdir():
        if path.is_dir():
            sync_tree(path)
        else:
            with path.open("rb") as file:
                _sync(file.fileno())
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder last, where the file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        _sync(handle)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    finally:
        os.close(handle)


def _sync(handle: int) -> None:
    """Returns when a file or folder would survive a loss of power.

    Source:
        Darwin's manual of `fsync`, which names F_FULLFSYNC for that; a file system that does not
        know it (a network's) gets an `fsync`.
    """
    if _FULLSYNC is not None:
        try:
            fcntl.fcntl(handle, _FULLSYNC)
            return
        except OSError as error:
            if error.errno not in (*_CANNOT, errno.ENOTTY):
                raise
    os.fsync(handle)


def cloned_bytes(path: Path) -> int:
    """Returns the bytes of a file whose blocks other files have too, as far as the system tells
    (Linux).

    Source:
        `struct fiemap` and `struct fiemap_extent` in Linux' include/uapi/linux/fiemap.h.
    """
    shared = start = 0
    try:
        with path.open("rb") as file:
            while True:
                room = bytearray(_HEADER.size + _EXTENTS * _EXTENT.size)
                _HEADER.pack_into(room, 0, start, 2**64 - 1 - start, 1, 0, _EXTENTS, 0)
                fcntl.ioctl(file.fileno(), _FIEMAP, room)
                count = _HEADER.unpack_from(room)[3]
                for number in range(count):
                    extent = _EXTENT.unpack_from(room, _HEADER.size + number * _EXTENT.size)
                    shared += extent[2] if extent[5] & _SHARED else 0
                    start = extent[0] + extent[2]
                if not count or extent[5] & _LAST:
                    return shared
    except OSError:  # another system, or a file system without extents
        return 0


def is_read_only(error: OSError) -> bool:
    """Whether an error says that the place cannot be written to."""
    return error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def guarded(where: Path, other: str = "") -> Iterator[None]:
    """Translates what a file system refuses into an error of ours, with the name of the file.

    Args:
        other: how to choose another place, where that is not one of the store.

    Raises:
        StoreError: it refuses something.
    """
    try:
        yield
    except BrokenPipeError:  # no file: the reader has ended
        raise
    except OSError as error:
        raise file_error(error, Path(error.filename or where), other) from error


def file_error(error: OSError, where: Path, other: str = "") -> StoreError:
    """Returns the error of a file system, as ours.

    Args:
        other: how to choose another place, where that is not one of the store.
    """
    room = f"free some space{f', or {other}' if other else _OTHER_DISK}"
    access = f"change its permissions, or {other or 'use another store with cache=PATH'}"
    many = "close other programs, or allow more open files (ulimit -n)"
    hints = {
        errno.ENOSPC: room,
        errno.EDQUOT: room,
        errno.EMFILE: many,
        errno.ENFILE: many,
        errno.EACCES: access,
        errno.EPERM: access,
        errno.ELOOP: "a link is where a file would be written; remove it if you did not "
                     "make it",
        errno.ENODEV: "a pipe or device is where a file is expected; remove it if you did not "
                      "make it",
        errno.EIO: "the disk may be failing: see the system's log; finished steps are kept, and "
                   "sdbuild verify finds what is damaged",
    }
    elsewhere = other or "put the store where it can be written, with cache=PATH"
    return StoreError(
        f"{where}: {error.strerror or error}", hint=hints.get(error.errno or 0, elsewhere)
    )
