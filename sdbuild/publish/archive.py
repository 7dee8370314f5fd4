"""Zips that are the same bytes on every machine: nothing of a clock, a user or a disk is in them.

They are stored, not deflated: weights do not get smaller, and an app unpacks sooner.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

from sdbuild.bundle.contract import require
from sdbuild.bundle.places import opened

_EPOCH = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644 << 16
_UNIX = 3


def write_zip(path: Path, files: Mapping[str, Path | bytes]) -> None:
    """Writes a zip of files by their names in it, in their order; over 4 GB it is a Zip64."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            content = files[name]
            member = zipfile.ZipInfo(name, _EPOCH)
            member.external_attr, member.create_system = _MODE, _UNIX
            if isinstance(content, bytes):
                archive.writestr(member, content)
                continue
            member.file_size = content.stat().st_size
            with content.open("rb") as source, archive.open(member, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)


def check_zip(path: Path) -> list[str]:
    """Opens a zip as an app does, and holds what is in it to the contract; the warnings.

    Raises:
        BundleError: no bundle is in it, or one that hosts cannot use.
    """
    with opened(path) as (bundle, _):
        return [str(violation) for violation in require(bundle.folder)]
