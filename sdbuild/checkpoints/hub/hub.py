"""Checkpoints in repositories of the Hugging Face Hub: `hub:owner/name`, `hub:owner/name@revision`.

A revision is resolved to a commit once, and what a commit holds never changes. Both are facts
that are remembered, so that a key needs neither the network nor huggingface_hub:

    facts["hub:owner/name@main"]     = "hub:owner/name@<commit>"
    facts["hub:owner/name@<commit>"] = {path: "sha256:…" of a file in LFS, or "git:…", its blob}
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.base.errors import SourceError, Unreachable
from sdbuild.base.parsing import read_file
from sdbuild.checkpoints import layout
from sdbuild.checkpoints.pipelines import refused_by_name
from sdbuild.checkpoints.resources import LARGEST_BYTES, Resources

if TYPE_CHECKING:
    from sdbuild.checkpoints.folder import DigestOf
    from sdbuild.safetensors.tensors import Tensor

_PREFIX = "hub:"
_PLACE = re.compile(r"hub:([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@([^\s@]+))?", re.ASCII)
_PAGE = re.compile(r"(?:https?://|hf://)?(?:huggingface\.co/|hf\.co/)?([\w.-]+/[\w.-]+).*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_hub(place: str) -> bool:
    """Whether the place names a repository of the Hub."""
    return place.startswith(_PREFIX)


def check_place(text: str) -> str:
    """Returns the text, if it can name a repository, or is none of the Hub's.

    Raises:
        ValueError: it is a repository, but written in another way.
    """
    if "\0" in text:
        raise ValueError("a folder, a file or hub:owner/name, without the character NUL")
    if (is_hub(text) and not _PLACE.fullmatch(text)) or "://" in text:
        page = _PAGE.fullmatch(text)
        meant = f'; did you mean "hub:{page[1]}"?' if page and "://" in text else ""
        raise ValueError(f"a folder, or hub:owner/name[@revision]{meant}")
    return text


def open_hub(place: str, facts: MutableMapping[str, Any]) -> Hub:
    """Returns the checkpoint at `place`; asks the Hub only for what the facts do not hold.

    If it cannot be reached, what its cache has of the repository will do.

    Raises:
        SourceError: there is no such repository or revision, or none that we may see.
    """
    repo, revision = _split(place)
    pinned = place if _COMMIT.fullmatch(revision or "") else facts.get(place, "")
    if (files := facts.get(pinned)) is None:
        from sdbuild.checkpoints.hub import client

        try:
            commit, files = client.list_files(place, repo, revision)
        except Unreachable:
            found = client.cached(repo, revision)
            if found is None:
                raise
            # May lack files, and be older than what the Hub would say: nothing to remember.
            return Hub(f"{_PREFIX}{repo}@{found[0]}", found[1], {}, is_whole=False)
        pinned = f"{_PREFIX}{repo}@{commit}"
        facts[pinned] = files
        if pinned != place:
            facts[place] = pinned
    return Hub(pinned, files, facts)


def _split(place: str) -> tuple[str, str | None]:
    """Repository and revision."""
    found = _PLACE.fullmatch(place)
    assert found is not None, place  # checked when it was read
    return found[1], found[2]


class Hub:
    """A checkpoint in a repository, at one commit; its files come when they are read."""

    def __init__(
        self, pinned: str, files: Mapping[str, str], facts: MutableMapping[str, Any],
        is_whole: bool = True,
    ) -> None:
        self.place = pinned
        self._where = pinned if is_whole else f"{pinned}, of which only the cache can be reached"
        self._files = files
        self._facts = facts
        self._fetched_again: list[str] = []

    def __repr__(self) -> str:
        return self.place

    @property
    def origin(self) -> dict[str, Any]:
        """The repository and commit, and which files were wrong in the Hub's cache."""
        again = {"fetched_again": self._fetched_again} if self._fetched_again else {}
        return {"place": self.place} | again

    @property
    def names(self) -> tuple[str, ...]:
        """The paths of all files."""
        return tuple(self._files)

    def file(self, name: str) -> Path:
        """Returns a file of this path, in the Hub's cache.

        Raises:
            SourceError: it cannot be had.
        """
        return self._fetch(name)

    def digest(self, name: str, digest_of: DigestOf) -> str:
        """Returns the digest of a file, as the Hub names it."""
        return self._files[name]

    def identity(self, part: str, digest_of: DigestOf) -> dict[str, str]:
        """Returns the digest of each file of the part, as the Hub names it.

        Raises:
            SourceError: the repository lacks one of them, or has only pickles.
        """
        with self._refused_by_name():
            names = layout.part_files(self._where, part, self._files, self._shards)
        return {name: self._files[name] for name in names}

    def has(self, part: str) -> bool:
        """Whether it has the component."""
        return layout.has(part, self._files)

    def config(self, part: str) -> dict[str, Any]:
        """Returns the content of the part's `config.json`.

        Raises:
            SourceError: there is none, it is no JSON object, or it cannot be had.
        """
        with self._refused_by_name():
            [name] = layout.config_files(self._where, part, self._files)
        return layout.config(f"{self.place}: {name}", read_file(self._fetch(name), SourceError))

    def tensors(self, part: str) -> dict[str, Tensor]:
        """Returns the part's tensors.

        Raises:
            SourceError: its weights are not there, are pickles, or cannot be had.
        """
        from sdbuild.safetensors.tensors import table

        names = layout.weight_files(self._where, part, self._files, self._shards)
        return table([self._fetch(name) for name in names])

    def resources(self) -> Resources:
        """Tokenizer, scheduler, card and licence; each comes when it is read, which raises
        SourceError if it cannot be had.

        Raises:
            SourceError: one that is needed is not there.
        """
        names = layout.part_files(self._where, layout.RESOURCES, self._files, self._shards)
        return Resources(self._where, names, lambda name: read_file(
            self._fetch(name), SourceError, most_bytes=LARGEST_BYTES))

    def _refused_by_name(self) -> AbstractContextManager[None]:
        return refused_by_name(self._where, self._files,
                               lambda name: read_file(self._fetch(name), SourceError))

    def _shards(self, index: str) -> list[str]:
        """Returns the files that an index names, a fact since the index belongs to a commit."""
        known = self._facts.get(f"{self.place}/{index}")
        if known is None:
            content = read_file(self._fetch(index), SourceError)
            known = layout.shard_names(self.place, index, content)
            self._facts[f"{self.place}/{index}"] = known
        return known

    def _fetch(self, name: str) -> Path:
        """Returns a file in the Hub's cache, whole and as promised."""
        from sdbuild.checkpoints.hub import client

        repo, commit = _split(self.place)
        path, is_again = client.fetch(self.place, repo, str(commit), name, self._files[name])
        if is_again:
            self._fetched_again.append(name)
        return path
