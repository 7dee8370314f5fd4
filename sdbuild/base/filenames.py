"""Names of files as a Mac treats them: which are not anybody's content, and which are one name."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path

_SYSTEM = frozenset({
    ".DS_Store", ".localized", "Icon\r", ".VolumeIcon.icns", ".apdisk", "__MACOSX",
    ".Spotlight-V100", ".fseventsd", ".Trashes", ".TemporaryItems", ".DocumentRevisions-V100",
    ".AppleDouble", ".AppleDB", ".AppleDesktop", ".com.apple.timemachine.donotpresent",
})


def is_system_file(name: str) -> bool:
    """Whether macOS writes a file or folder of this name into folders without being asked.

    `._x` holds the attributes of `x` on disks that have none (AppleDouble). Such files are no
    part of a store, a bundle, a package or a checkpoint: they are never read, copied or reported.
    """
    return name in _SYSTEM or name.startswith("._")


def contents(folder: Path, suffix: str = "") -> list[Path]:
    """Returns the files and folders in a folder, in order, or those whose names end in `suffix`;
    what macOS adds is left out.

    Raises:
        OSError: the folder cannot be listed.
    """
    found = (path for path in folder.iterdir() if path.name.endswith(suffix))
    return sorted(path for path in found if not is_system_file(path.name))


def normalized(name: str) -> str:
    """Returns the one spelling (NFC) of a name or path that file systems of a Mac may give as
    another.

    HFS+ lists `é` as two code points; APFS finds a file under both spellings.
    """
    return unicodedata.normalize("NFC", name)


def collision(paths: Iterable[str]) -> tuple[str, str] | None:
    """Returns the first two of some relative paths that the usual disk of a Mac takes for one,
    which tells neither case nor spellings apart; None if there are none.

    Folders count: where `a/x` and `A/y` are laid out, one of them comes out under another name.
    """
    files: set[str] = set()
    known: dict[str, str] = {}
    for path in paths:
        if path in files:
            return path, path
        files.add(path)
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            name = "/".join(parts[:end])
            other = known.setdefault(_folded(name), name)
            if other != name:
                return other, name
    return None


def _folded(name: str) -> str:
    return normalized(unicodedata.normalize("NFD", name).casefold())
