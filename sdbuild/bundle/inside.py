"""Folders that somebody else made: only regular files in them, and no links out."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sdbuild.base.errors import BundleError
from sdbuild.base.filenames import is_system_file
from sdbuild.base.parsing import TRY_AGAIN, shown


def check_inside(folder: Path) -> None:
    """Makes sure that whatever is read in a folder lies in it, and is a file that ends.

    Raises:
        BundleError: a link leads out of it or nowhere, or there is a pipe, socket or device, which
            would be waited for; names it.
    """
    root = os.path.realpath(folder)
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as found:
            for entry in found:
                if not is_system_file(entry.name):
                    _check(Path(entry.path), root)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(Path(entry.path))


def _check(path: Path, root: str) -> None:
    if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
        raise BundleError(f"{shown(path)}: a link that leads out of the bundle",
                          hint="copy the bundle with its links followed: cp -rL")
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise BundleError(f"{shown(path)}: cannot be read: {error.strerror}",
                          hint=TRY_AGAIN) from error
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise BundleError(f"{shown(path)}: neither a file nor a folder",
                          hint="a bundle has no other files: download or build it again")
