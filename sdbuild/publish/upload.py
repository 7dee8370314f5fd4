"""Publishing: what a repository lacks of a variant is uploaded, and nothing else is touched."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sdbuild.base.digest import sha256_file
from sdbuild.base.parsing import toml_table
from sdbuild.publish import card as cards
from sdbuild.publish.card import CARD, Facts, Section, Sum
from sdbuild.publish.client import Repository
from sdbuild.publish.tree import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of a repository: the files to write, those that are there already, and those of an
    earlier publication to delete. `card` is the new card."""

    card: bytes
    added: Mapping[str, Path | bytes]
    kept: tuple[str, ...]
    gone: tuple[str, ...]


def published(repository: Repository) -> tuple[str, dict[str, Section]]:
    """Returns the card of a repository, and the variants that sdbuild published there."""
    if CARD not in repository.digests:
        return "", {}
    text = repository.text(CARD)
    return text, cards.sections(text)


def change(repository: Repository, tree: Tree, facts: Facts, before: str) -> Change:
    """Returns what has to be done so that the repository has the variant.

    Args:
        before: the card as it is.
    """
    old = cards.sections(before).get(tree.folder)
    card = before or cards.introduction(
        repository.name.partition("/")[2], tree.manifest, _base(facts))
    text = cards.with_section(card, facts, cards.header_of(tree.manifest, _base(facts))).encode()
    wanted: dict[str, Path | bytes] = {**tree.files, CARD: text}
    added = {path: content for path, content in wanted.items()
             if not _is_there(content, tree.sums.get(path), repository.digests.get(path, ""))}
    return Change(card=text, added=added, kept=tuple(sorted(wanted.keys() - added.keys())),
                  gone=tuple(_gone(repository, old, wanted)))


def changed(repository: Repository, made: Change, sums: Mapping[str, Sum]) -> Repository:
    """Returns a repository as it is after a change.

    Args:
        sums: digests that are known already, by path.
    """
    found = copy.copy(repository)
    new = {path: sums[path].sha256 if path in sums else _sha256(content)
           for path, content in made.added.items()}
    found.digests = {path: digest for path, digest in
                     {**repository.digests, **{p: f"sha256:{s}" for p, s in new.items()}}.items()
                     if path not in made.gone}
    return found


def _base(facts: Facts) -> list[str]:
    return cards.base_models(toml_table(facts.recipe, "the recipe")["source"])


def _is_there(content: Path | bytes, known: Sum | None, digest: str) -> bool:
    """Whether the Hub's digest of a file is that of its content: a SHA-256, if the file is in LFS,
    else git's."""
    if not digest:
        return False
    if digest.startswith("sha256:") and known is not None:
        return digest == f"sha256:{known.sha256}"
    if digest.startswith("sha256:"):
        return digest == f"sha256:{_sha256(content)}"
    data = content if isinstance(content, bytes) else content.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return digest == f"git:{blob.hexdigest()}"


def _sha256(content: Path | bytes) -> str:
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) \
        else sha256_file(content)


def _gone(
    repository: Repository, old: Section | None, wanted: Mapping[str, object]
) -> list[str]:
    """Returns the files of the variant as it was published before that are no longer in it; those
    that somebody changed since stay."""
    found = []
    for path, each in (old.files if old else {}).items():
        digest = repository.digests.get(path)
        if path in wanted or digest is None:
            continue
        is_ours = digest == f"sha256:{each.sha256}" if digest.startswith("sha256:") else \
            hashlib.sha256(repository.text(path).encode()).hexdigest() == each.sha256
        if is_ours:
            found.append(path)
    return sorted(found)
