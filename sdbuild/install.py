"""Puts a finished bundle where it is wanted, whole, and takes it away again."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from sdbuild.errors import BundleError
from sdbuild.store import Record, Store

MANIFEST = "manifest.json"


def install(record: Record, store: Store, folder: Path) -> None:
    """Lays the bundle out at `folder`, in place of an older bundle there.

    It is laid out from nothing and then renamed, so that no file of another variant can stay.

    Raises:
        BundleError: something that is no bundle stands there.
        StoreError: the file system does not take it.
    """
    check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        new = store.checkout(record, work / "new")
        if folder.exists():
            folder.rename(work / "old")
        new.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def remove(folder: Path) -> None:
    """Removes the bundle at `folder`, if there is one.

    Raises:
        BundleError: something that is no bundle stands there.
    """
    check_replaceable(folder)
    shutil.rmtree(folder, ignore_errors=True)


def check_replaceable(folder: Path) -> None:
    """Only a bundle of ours or an empty folder is ever replaced: anything else is the user's.

    Raises:
        BundleError: something else stands there.
    """
    if not folder.exists() or (folder / MANIFEST).is_file():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise BundleError(
            f"{folder}: not a bundle, so it is left alone",
            hint="choose another place with bundle=FOLDER",
        )
