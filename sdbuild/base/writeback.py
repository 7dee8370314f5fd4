"""Early writeback: the system starts to flush a large file while it is still written, so that the
final sync has little left to do."""

from __future__ import annotations

import ctypes
from typing import IO

_EVERY_BYTES = 32 << 20
_START = 2
"""`SYNC_FILE_RANGE_WRITE`: starts to write dirty pages, and waits for nothing."""
_SYNC_RANGE = getattr(ctypes.CDLL(None), "sync_file_range", None)


class Writeback:
    """Flushes a file that is written from start to end, a part at a time (Linux only).

    It guarantees nothing: sync the file at its end.

    Source:
        Linux' manual of `sync_file_range(2)`.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._started = 0

    def advance(self) -> None:
        """Starts to flush what was written since the last part, if it is enough. Call it after
        each write."""
        written = self._file.tell()
        waiting = written - self._started
        if _SYNC_RANGE is None or waiting < _EVERY_BYTES:
            return
        self._file.flush()
        _SYNC_RANGE(self._file.fileno(), ctypes.c_int64(self._started), ctypes.c_int64(waiting),
                    _START)
        self._started = written
