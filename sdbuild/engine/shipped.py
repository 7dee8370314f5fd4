"""Lowered programs that ship with sdbuild, so that known architectures need no converter.

    records.json           the records of their trace and lower steps, as stores have them
    objects/<digest>.xz    the files of the lowered programs

They are found by what they were made of, whatever versions of tools are installed here: the record
names those that made it. Graphs do not ship: another target or layout traces its own here.
`scripts/programs` writes the folder.
"""

from __future__ import annotations

import lzma
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sdbuild.base.digest import Digest, digest, digest_bytes
from sdbuild.base.errors import CorruptArtifact, StepError
from sdbuild.base.parsing import Malformed, json_file
from sdbuild.engine.step import Step, tool_versions
from sdbuild.recipe.recipe import Recipe
from sdbuild.store import SHIPPED, Entry, Record, Store
from sdbuild.store.record import record_of

PROGRAMS = Path(__file__).parent.parent / "lowering" / "programs"
RECORDS = "records.json"
_HINT = "install sdbuild again; lower=here does without its programs"


class Shipped:
    """The programs in a folder."""

    def __init__(self, folder: Path = PROGRAMS) -> None:
        self.folder = folder

    def __repr__(self) -> str:
        return f"Shipped({self.folder})"

    @cached_property
    def records(self) -> dict[str, Record]:
        """The records, by what they were made of.

        Raises:
            CorruptArtifact: the file is not what `scripts/programs` writes.
        """
        try:
            table = json_file(self.folder / RECORDS, Malformed)
            found = [record_of(fields) for fields in table["records"]]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CorruptArtifact(f"{self.folder / RECORDS} is damaged: {error}",
                                  hint=_HINT) from error
        return {identity(record.ingredients): record for record in found}

    def find(self, ingredients: Mapping[str, Any]) -> Record | None:
        """Returns the record of what is made of these ingredients, whatever the tools."""
        found = self.records.get(identity(ingredients))
        return replace(found, origin=SHIPPED) if found else None

    def has_content(self, record: Record) -> bool:
        """Whether all files of an artifact ship."""
        return all(self.object(entry.digest).is_file() for entry in record.tree)

    def fetch(self, record: Record, store: Store, path: str = "") -> bool:
        """Takes what the store lacks of an artifact, or of one path of it, into the store.

        Says whether the store has it now. Hold the lock of the record's key.

        Raises:
            CorruptArtifact: a file is not what its record says.
            StoreError: the store cannot be written to.
        """
        missing = store.missing(record, path)
        if not all(self.object(entry.digest).is_file() for entry in missing):
            return False
        with store.workspace(record.key) as work:
            for entry in missing:
                (work / "file").write_bytes(self._content(entry))
                store.accept(work / "file", entry)
        return True

    def object(self, digest: Digest) -> Path:
        """Returns where the file with a digest is, or would be."""
        return self.folder / "objects" / f"{digest}.xz"

    def _content(self, entry: Entry) -> bytes:
        path = self.object(entry.digest)
        try:
            content = lzma.LZMADecompressor().decompress(path.read_bytes(), entry.size_bytes)
        except (lzma.LZMAError, OSError) as error:
            raise CorruptArtifact(f"{path} is damaged: {error}", hint=_HINT) from error
        if digest_bytes(content) != entry.digest:
            raise CorruptArtifact(f"{path} is damaged: it is not {entry.path}", hint=_HINT)
        return content


def shipped_for(recipe: Recipe) -> Shipped | None:
    """Returns the programs that a recipe may use: none where they are to be lowered here."""
    return Shipped() if recipe.packaging.lower == "once" else None


def expect_same_tools(step: Step, record: Record) -> None:
    """Refuses to make here what ships without content, unless the tools are those that made it.

    Raises:
        StepError: names the first that is another.
    """
    here, made_by = tool_versions(step), record.ingredients["tools"]
    for tool in sorted(here.keys() | made_by.keys()):
        if here.get(tool) != made_by.get(tool):
            raise StepError(
                f"{step.name}: it does not ship with sdbuild, only what is made of it, with "
                f"{tool} {made_by.get(tool)}; here is {here.get(tool)}",
                hint="lower=here makes both on this machine")


def identity(ingredients: Mapping[str, Any]) -> Digest:
    """Returns the digest of ingredients without the versions of tools."""
    return digest("program", {k: v for k, v in ingredients.items() if k != "tools"})
