"""Compares two bundles: the files that differ, and the bytes that a device fetches again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sdbuild.base.digest import digest_file
from sdbuild.base.errors import BundleError
from sdbuild.bundle.manifest import MANIFEST, load_bundle
from sdbuild.bundle.places import has_bundle
from sdbuild.mil.files.suffixes import COMPILED, PACKAGE
from sdbuild.store.scan import files

_OTHER = "other files"
_MODEL = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A component: the files that are new or other, and those that are gone.

    Units:
        size_bytes: of the files that are new or other. `count` files make up the component now.
    """

    name: str
    files: tuple[str, ...]
    gone: tuple[str, ...]
    count: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The components of two bundles.

    Units:
        size_bytes: of all that changed; whole_bytes: of the whole new bundle.
    """

    components: tuple[Changed, ...]
    size_bytes: int
    whole_bytes: int


@dataclass(frozen=True, slots=True)
class _File:
    component: str
    digest: str
    size: int


def changes(before: Path, after: Path) -> Changes:
    """Returns what a device that has one bundle fetches for the other.

    Raises:
        BundleError: one of them is none.
    """
    old, new = _files(before), _files(after)
    names = list(dict.fromkeys(each.component for each in (*new.values(), *old.values())))
    found = []
    for name in sorted(names, key=lambda word: word == _OTHER):
        own = {path: each for path, each in new.items() if each.component == name}
        changed = sorted(path for path, each in own.items()
                         if path not in old or old[path].digest != each.digest)
        gone = sorted(path for path, each in old.items()
                      if each.component == name and path not in new)
        found.append(Changed(name=name, files=tuple(changed), gone=tuple(gone), count=len(own),
                             size_bytes=sum(own[path].size for path in changed)))
    return Changes(components=tuple(found), size_bytes=sum(each.size_bytes for each in found),
                   whole_bytes=sum(each.size for each in new.values()))


def _files(folder: Path) -> Mapping[str, _File]:
    """Returns the files of a bundle, each with the component that it is of."""
    if not folder.is_dir():
        raise BundleError(f"{folder}: there is no such folder, expected that of a bundle")
    is_model = folder.suffix in (COMPILED, PACKAGE)
    if not is_model and not has_bundle(folder):
        raise BundleError(f"{folder}: neither a bundle nor a model, found no {COMPILED} and no "
                          f"{PACKAGE} in it", hint="use a bundle's folder; sdbuild build makes one")
    owners: dict[str, str] = {}
    if (folder / MANIFEST).is_file():
        owners = {f"{path.relative_to(folder).as_posix()}/": component
                  for component, models in load_bundle(folder).models.items() for path in models}
    found = {}
    for path in files(folder):
        name = path.relative_to(folder).as_posix()
        own = next((owner for start, owner in owners.items() if name.startswith(start)), None)
        found[name] = _File(own or (_MODEL if is_model else _model_of(name)), digest_file(path),
                            path.stat().st_size)
    return found


def _model_of(path: str) -> str:
    """Returns the model that a file of a folder is in, without its suffix."""
    found = re.match(rf"(.*?)({COMPILED}|{PACKAGE})/", path)
    return found[1] if found else _OTHER
