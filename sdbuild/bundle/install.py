"""Puts a finished bundle where it is wanted, whole, and takes it away again."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sdbuild.base.errors import BundleError
from sdbuild.base.filenames import is_system_file, normalized
from sdbuild.base.parsing import Malformed, json_file
from sdbuild.store import Record, Store, roots
from sdbuild.store.disk import exchange, make_folder, sweep
from sdbuild.store.locks import locked
from sdbuild.store.roots import MANIFEST
from sdbuild.store.scan import entries

_OTHER = "choose another location with bundle=FOLDER"


def install(record: Record, store: Store, folder: Path) -> None:
    """Lays the bundle out at `folder`, in place of an older bundle there.

    It is laid out from nothing and then renamed, so that no file of another variant can stay. The
    folder above is locked meanwhile: of two that put something into one place, the second waits.

    Raises:
        BundleError: something that is no bundle stands there.
        StoreError: the file system does not take it.
    """
    try:
        make_folder(folder.parent)
        with locked(folder.parent, f"install {folder.name}"):
            _recover(folder)
            check_replaceable(folder)
            work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
            try:
                new = store.checkout(record, work / "new", other=_OTHER)
                roots.add(folder, record, store)
                exchange(new, folder, work / "old")
            finally:
                sweep(work)
    except OSError as error:
        raise _unwritable(folder, error) from error


def install_problem(record: Record, store: Store, folder: Path) -> str:
    """Returns the problem of the bundle that should be at `folder`; empty if it is in
    place, and no kill left another one beside it."""
    if not store.is_laid_out(record, folder):
        return "not installed"
    left = leftovers(folder)
    return f"installed, but a killed process left {left[0].name} beside it" if left else ""


def leftovers(folder: Path) -> list[Path]:
    """Returns what a killed process left next to a bundle that it installed."""
    prefix = re.escape(normalized(f".{folder.name}-"))
    ours = re.compile(prefix + "[a-z0-9_]{8}")  # as mkdtemp names them
    found = folder.parent.iterdir() if folder.parent.is_dir() else ()
    return [work for work in found if ours.fullmatch(normalized(work.name)) and work.is_dir()
            and {path.name for path in entries(work)} <= {"old", "new"}]


def _recover(folder: Path) -> None:
    """Mends what a kill left beside a bundle: puts the old one back if no other took its place."""
    for work in leftovers(folder):
        if (work / "old").is_dir() and not folder.exists():
            (work / "old").rename(folder)
        sweep(work)


def remove(folder: Path) -> bool:
    """Removes the bundle at `folder`; says whether there was one.

    Raises:
        BundleError: something that is no bundle stands there, or it cannot be removed.
    """
    check_replaceable(folder)
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unwritable(folder, error) from error
    return True


def check_writable(path: Path, hint: str = _OTHER) -> None:
    """Makes sure that a bundle, or something else, can be put where nothing is yet.

    Raises:
        BundleError: the file system does not take it.
    """
    if path.exists():
        return
    place = next(parent for parent in path.absolute().parents if parent.exists())
    try:  # a folder would not do: a Finder may put a file into it before it is removed
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise _unwritable(path, error, hint) from error


def _unwritable(path: Path, error: OSError, hint: str = _OTHER) -> BundleError:
    return BundleError(f"{path}: {error.strerror or error}", hint=hint)


def check_replaceable(folder: Path) -> None:
    """Only a bundle of ours or an empty folder is ever replaced: anything else is the user's.

    Raises:
        BundleError: something else stands there, or something was added to the bundle.
    """
    try:
        own = _own_files(folder)
        if own is None and any(_contents(folder)):
            raise BundleError(
                f"{folder}: not a bundle, so it is left alone",
                hint="choose another location with bundle=FOLDER",
            )
        added = sorted(set(_contents(folder)) - (own or set()))
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise BundleError(
            f"{folder}: not a folder", hint="choose another with bundle=FOLDER"
        ) from error
    except OSError as error:
        raise _unwritable(folder, error) from error
    if added:
        raise BundleError(
            f"{folder}: {', '.join(added[:5])} is not part of the bundle, "
            "so nothing was replaced",
            hint="move it away, or choose another location with bundle=FOLDER",
        )


def _contents(folder: Path) -> Iterator[str]:
    """Yields the paths of all files below a folder, one by one: it may be the root of a disk.

    What macOS adds to folders is left out: it goes with the folder.
    """
    def tell(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=tell):
        folders[:] = [name for name in folders if not is_system_file(name)]
        links = (name for name in folders if Path(place, name).is_symlink())
        for name in (*files, *links):
            if not is_system_file(name):
                yield normalized(Path(place, name).relative_to(folder).as_posix())


def _own_files(folder: Path) -> set[str] | None:
    """Returns the files that the manifest of a bundle names, and itself; None if it is no
    bundle."""
    try:
        manifest = json_file(folder / MANIFEST, Malformed, has_infinities=True)
        return {MANIFEST, *map(normalized, manifest["files"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None
