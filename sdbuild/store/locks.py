"""Locks between processes: `flock` on a file, which goes with its process however that ends.

Who holds a lock is written into its file, for those who wait. Where the file system has no locks,
they are held on files in a folder of this user (`private.py`): their processes of this machine are
kept apart as ever; those of others are not, and may do the same work twice, with the same bytes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from sdbuild.base.digest import digest
from sdbuild.base.parsing import Malformed, json_object
from sdbuild.store.disk import file_error, is_read_only, make_folder
from sdbuild.store.private import private_folder

LOG = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL,
             errno.EBADF)

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
"""A lock file is written to, so a link that another user put in its place is not followed."""

_EVERY_S = 0.025
_PATIENCE_S = 0.5
"""The longest wait that is not reported."""


@contextlib.contextmanager
def locked(path: Path, what: str, *, is_shared: bool = False) -> Iterator[None]:
    """Holds the lock file `path`, or a folder itself, for `what`; says for whom it waits.

    Shared, it keeps out only those who want it alone. Where it cannot be written to nobody can
    want that, and it is not needed.

    Raises:
        StoreError: the file cannot be written.
    """
    try:
        handle = _open(path)
    except OSError as error:
        if is_shared and is_read_only(error):
            yield
            return
        raise file_error(error, Path(error.filename or path.parent)) from error
    handle = _hold(handle, path, what, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(handle)


def grab(path: Path) -> int | None:
    """Returns the handle of a lock file that nobody held, to be closed by its holder; else None.

    Raises:
        StoreError: the file cannot be written.
    """
    try:
        handle, is_mine = _try(_open(path), path, fcntl.LOCK_EX)
    except OSError as error:
        raise file_error(error, Path(error.filename or path.parent)) from error
    if is_mine:
        return handle
    os.close(handle)
    return None


def is_held(path: Path) -> bool:
    """Whether somebody holds a lock."""
    handle = grab(path) if path.exists() else None
    if handle is not None:
        os.close(handle)
    return handle is None and path.exists()


def _open(path: Path) -> int:
    if path.is_dir():
        return os.open(path, os.O_RDONLY)
    make_folder(path.parent)  # the first that a store has, and it shall last
    return os.open(path, _FLAGS, 0o666)


def _hold(handle: int, path: Path, what: str, how: int) -> int:
    """Returns the handle that holds the lock in the end."""
    handle, is_mine = _try(handle, path, how)
    patience = time.monotonic() + _PATIENCE_S
    while not is_mine and time.monotonic() < patience:
        time.sleep(_EVERY_S)
        handle, is_mine = _try(handle, path, how)
    if not is_mine:
        LOG.warning("%s: waiting for %s", what, _holder(path, handle))
        fcntl.flock(handle, how)
    if not path.is_dir():
        _sign(handle, what)
    return handle


def _try(handle: int, path: Path, how: int) -> tuple[int, bool]:
    """Returns the handle to lock, here or elsewhere on this machine, and whether it is locked
    now."""
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return handle, False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(handle)
            raise file_error(error, path) from error
        os.close(handle)
        return _try_elsewhere(path, how)
    return handle, True


def _try_elsewhere(path: Path, how: int) -> tuple[int, bool]:
    folder = private_folder()
    try:
        handle = os.open(folder / digest("lock", str(path.resolve())), _FLAGS, 0o600)
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return handle, False
    except OSError as error:
        raise file_error(error, Path(error.filename or folder)) from error
    return handle, True


def _sign(handle: int, what: str) -> None:
    """Says in the file who holds it, if there is room: of several who share it, the last to come.
    """
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    signature = {"what": what, "pid": os.getpid(), "host": platform.node(), "since": since}
    with contextlib.suppress(OSError):  # it is held all the same
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(signature).encode(), 0)


def _holder(path: Path, handle: int) -> str:
    """Returns who holds a lock, as far as is known."""
    try:
        found = json_object(os.pread(handle, 1000, 0), path.name, Malformed)
        return (f"{found['what']} of process {found['pid']} on {found['host']}, "
                f"since {found['since']}")
    except (OSError, ValueError, KeyError, TypeError):  # a folder, or just being signed
        return f"the process that uses {path}"
