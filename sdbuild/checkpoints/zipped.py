"""Finished models in a zip, of which each file is unpacked once it is asked for."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import MutableMapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.base.errors import SourceError
from sdbuild.base.zips import Zip

if TYPE_CHECKING:
    from sdbuild.checkpoints.folder import DigestOf


class ZippedPlace:
    """The files of a zip.

    Args:
        facts: keeps the digests of its files, by that of the zip:
            facts["zip:<digest>"] = {name: SHA-256}.

    Raises:
        SourceError: it cannot be read, or leads out of itself.
    """

    def __init__(self, path: Path, facts: MutableMapping[str, Any]) -> None:
        self.place = str(path)
        self._path = path
        self._facts = facts
        self._zip = Zip(path, SourceError)
        self.names = self._zip.names

    @property
    def origin(self) -> dict[str, Any]:
        """Nothing: where a file lies on some machine is nobody else's business."""
        return {}

    def file(self, name: str) -> Path:
        """Returns one of its files, unpacked; it is gone with this object.

        Raises:
            SourceError: it is damaged.
        """
        found = self._unpacked / name
        return found if found.exists() else self._zip.extract(name, self._unpacked)

    @cached_property
    def _unpacked(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="sdbuild-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    def digest(self, name: str, digest_of: DigestOf) -> str:
        """Returns the digest of one of its files, as of a file on this machine.

        Raises:
            SourceError: it is damaged.
        """
        key = f"zip:{digest_of(self._path)}"
        known = self._facts.get(key)
        digests = known if isinstance(known, dict) else {}
        if not isinstance(digests.get(name), str):
            found = f"sha256:{self._zip.sha256(name)}"
            self._facts[key] = digests = {**digests, name: found}
        return str(digests[name])
