"""Destinations of edits and the compiler: nothing is replaced, and each is written atomically."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import permutations, product
from pathlib import Path
from tempfile import TemporaryDirectory

from sdbuild.base.errors import MILError

_COPY_BYTES = 1 << 30  # asked of the kernel at a time


def refuse_existing(sources: Iterable[Path], destinations: Sequence[Path]) -> None:
    """Refuses destinations where something is, or that lie in a file, each other or a source.

    Raises:
        MILError: one does; names it. All links are followed.
    """
    for path in destinations:
        if os.path.lexists(path):
            raise MILError(f"{path}: exists already", hint="remove it, or choose another name")
        refuse_file(path.parent)
    given = [(path, Path(os.path.realpath(path))) for path in sources]
    made = [(path, Path(os.path.realpath(path))) for path in destinations]
    for (path, place), (source, outer) in product(made, given):
        if place.is_relative_to(outer):
            raise MILError(f"{path}: is inside {source}, which is only read")
    for (path, place), (other, outer) in permutations(made, 2):
        if place.is_relative_to(outer):
            what = "is" if place == outer else "is inside"
            raise MILError(f"{path}: {what} {other}, which is to be written too",
                           hint="choose a separate path for each")


def refuse_file(folder: Path) -> None:
    """Refuses a folder that is a file, or that lies in one.

    Raises:
        MILError: it does; names the file.
    """
    for place in (folder, *folder.parents):
        if place.is_dir():
            return
        if os.path.lexists(place):
            raise MILError(f"{place}: a file, expected a folder")


RESULT = "result"
"""The name inside a folder of `written_atomically` that is moved to the destination."""


@contextmanager
def written_atomically(destination: Path) -> Iterator[Path]:
    """A temporary folder beside `destination`; its `RESULT` is moved there if nothing fails."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}.") as folder:
        yield Path(folder)
        (Path(folder) / RESULT).rename(destination)


def put(source: Path, target: Path, *, is_link: bool) -> None:
    """Puts the bytes of `source` at `target`: a copy, or a hard link where the file system can.

    A copy shares blocks where the file system can do that.
    """
    if is_link:
        try:
            os.link(source.resolve(), target)
            return
        except OSError:  # another file system, or one without links
            pass
    _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    try:
        with source.open("rb") as old, target.open("wb") as new:
            left = os.fstat(old.fileno()).st_size
            while left and (done := os.copy_file_range(old.fileno(), new.fileno(),
                                                       min(left, _COPY_BYTES))):
                left -= done
    except (AttributeError, OSError):  # not on every system, nor between all file systems
        left = -1
    if left:
        shutil.copyfile(source, target)
