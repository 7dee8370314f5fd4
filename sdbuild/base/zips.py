"""Zips from outside: regular files that stay in the folder they are unpacked to, and end."""

from __future__ import annotations

import hashlib
import lzma
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdbuild.base.errors import SDBuildError
from sdbuild.base.filenames import is_system_file
from sdbuild.base.parsing import shown
from sdbuild.base.units import size

SUFFIX = ".zip"
_MOST_FILES = 10_000
_MOST_BYTES = 64 << 30
_READ_BYTES = 1 << 20
_UNREADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, NotImplementedError,
               EOFError, RuntimeError, ValueError)
"""The errors of zipfile for other files, damaged ones, and those with a password."""


class Zip:
    """A zip that is read file by file; what systems add to it is left out.

    Args:
        error: raised where it is no zip, is damaged, or leads out of the folder it is unpacked to.
    """

    def __init__(self, path: Path, error: type[SDBuildError]) -> None:
        self._path = path
        self._error = error
        with self._opened() as file:
            self.names = tuple(each.filename for each in file.infolist()
                               if not each.is_dir() and not _is_of_a_system(each.filename))

    def extract(self, name: str, folder: Path) -> Path:
        """Returns a file of it, unpacked below a folder."""
        target = folder / name
        with self._opened() as file, self._member(file, name) as source:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                shutil.copyfileobj(source, out, _READ_BYTES)
        return target

    def extract_all(self, folder: Path) -> None:
        """Unpacks all files to a folder, if it has room for them."""
        with self._opened() as file:
            total = sum(member.file_size for member in file.infolist())
        if total > (free := shutil.disk_usage(folder).free):
            raise self._error(f"{shown(self._path)}: {size(total)} unpacked, and {size(free)} free",
                              hint="TMPDIR=FOLDER unpacks it on another disk")
        for name in self.names:
            self.extract(name, folder)

    def sha256(self, name: str) -> str:
        """Returns the SHA-256 of a file of it, in hexadecimal."""
        found = hashlib.sha256()
        with self._opened() as file, self._member(file, name) as source:
            while block := source.read(_READ_BYTES):
                found.update(block)
        return found.hexdigest()

    @contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(self._path) as file:
                self._check(file)
                yield file
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise self._error(f"{shown(self._path)}: a name in it is that of a file and of a "
                              "folder", hint="make the zip again: zip -r") from error
        except (*_UNREADABLE, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # bz2 raises it without
                raise
            raise self._error(f"{shown(self._path)}: not a zip that can be read: {error}",
                              hint="download it again") from error

    def _member(self, file: zipfile.ZipFile, name: str) -> zipfile.ZipExtFile:
        try:
            return file.open(name)  # type: ignore[return-value]
        except KeyError as error:
            raise self._error(f"{shown(self._path)}: {shown(name)} is not in it any more",
                              hint="it was changed; try again") from error

    def _check(self, file: zipfile.ZipFile) -> None:
        """Refuses what leads out of the folder, links, and more than any bundle has."""
        members = file.infolist()
        total = sum(member.file_size for member in members)
        if len(members) > _MOST_FILES or total > _MOST_BYTES:
            raise self._error(f"{shown(self._path)}: {len(members)} files of {size(total)}, more "
                              f"than any bundle has, expected at most {_MOST_FILES} of "
                              f"{size(_MOST_BYTES)}")
        for member in members:
            name = member.filename
            is_link = stat.S_ISLNK(member.external_attr >> 16)
            if is_link or name.startswith("/") or set(name) & set("\\\0") \
                    or ".." in name.split("/"):
                raise self._error(
                    f"{shown(self._path)}: {shown(name)} is a link or leads out of it",
                    hint="make the zip again: zip -r")


def _is_of_a_system(name: str) -> bool:
    return name.startswith("__MACOSX/") or is_system_file(name.rpartition("/")[2])
