"""Checkpoints in a folder of diffusers' layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.base.errors import SourceError
from sdbuild.base.filenames import contents
from sdbuild.base.parsing import read_file, shown
from sdbuild.checkpoints import layout, links
from sdbuild.checkpoints.pipelines import refused_by_name
from sdbuild.checkpoints.resources import LARGEST_BYTES, Resources

if TYPE_CHECKING:
    from sdbuild.safetensors.tensors import Tensor

DigestOf = Callable[[Path], str]
"""The digest of a local file; one that remembers it need not read the file again."""


class Folder:
    """A checkpoint in a folder.

    Raises:
        SourceError: there is no such folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = str(path)
        if not path.is_dir():
            raise SourceError(f"{path}: there is no such folder", hint=_hint(path))
        if all((path / name).is_dir() for name in ("blobs", "snapshots")):
            raise SourceError(
                f"{path}: the Hub's cache of a repository, expected a checkpoint in it",
                hint=_in_cache(path),
            )

    def __repr__(self) -> str:
        return self.place

    @property
    def origin(self) -> dict[str, str]:
        """Nothing: where a folder lies on some machine is nobody else's business."""
        return {}

    def identity(self, part: str, digest_of: DigestOf) -> dict[str, str]:
        """Returns the digest of each file of the part.

        Raises:
            SourceError: one of its files is not there, or its weights are pickles.
        """
        with self._refused_by_name():
            names = layout.part_files(self.place, part, self._names(), self._shards)
        return {name: digest_of(self._file(name)) for name in names}

    def has(self, part: str) -> bool:
        """Whether it has the component."""
        return layout.has(part, self._names())

    def config(self, part: str) -> dict[str, Any]:
        """Returns the content of the part's `config.json`.

        Raises:
            SourceError: there is none, or it is no JSON object.
        """
        with self._refused_by_name():
            [name] = layout.config_files(self.place, part, self._names())
        return layout.config(str(self.path / name), read_file(self._file(name), SourceError))

    def tensors(self, part: str) -> dict[str, Tensor]:
        """Returns the part's tensors.

        Raises:
            SourceError: its weights are not there, are pickles, or are not whole.
        """
        from sdbuild.safetensors.tensors import table

        names = layout.weight_files(self.place, part, self._names(), self._shards)
        return table(self._file(name) for name in names)

    def config_identity(self, part: str, digest_of: DigestOf) -> dict[str, str]:
        """Returns the digest of each file that `config` or `config_resources` reads.

        Raises:
            SourceError: one of them is not there.
        """
        names = layout.config_files(self.place, part, self._names())
        return {name: digest_of(self._file(name)) for name in names}

    def config_resources(self) -> Resources:
        """Tokenizer and scheduler, for a checkpoint that has none.

        Raises:
            SourceError: one of them is not there.
        """
        return self._read(layout.config_files(self.place, layout.RESOURCES, self._names()))

    def resources(self) -> Resources:
        """Tokenizer, scheduler, card and licence.

        Raises:
            SourceError: one that is needed is not there.
        """
        names = layout.part_files(self.place, layout.RESOURCES, self._names(), self._shards)
        return self._read(names)

    def _read(self, names: Sequence[str]) -> Resources:
        return Resources(self.place, names, lambda name: read_file(
            self._file(name), SourceError, most_bytes=LARGEST_BYTES))

    def _refused_by_name(self) -> AbstractContextManager[None]:
        return refused_by_name(self.place, self._names(),
                               lambda name: read_file(self._file(name), SourceError))

    def _file(self, name: str) -> Path:
        return links.inside(self.path, name)

    def _names(self) -> set[str]:
        """Returns the files here and in the folders here, and links to files that are gone.

        `glob` would ignore a folder that cannot be listed.
        """
        found = contents(self.path)
        found += [path for folder in found if folder.is_dir() for path in contents(folder)]
        return {path.relative_to(self.path).as_posix() for path in found
                if path.is_file() or (path.is_symlink() and not path.exists())}

    def _shards(self, index: str) -> list[str]:
        return layout.shard_names(self.place, index, read_file(self._file(index), SourceError))


def _in_cache(path: Path) -> str:
    """Returns the checkpoints in the Hub's cache of a repository: a folder for each commit."""
    found = [shown(commit.relative_to(path)) for commit in contents(path / "snapshots")[:3]]
    kind, *repo = path.name.split("--")
    name = "/".join(repo) if kind == "models" and len(repo) == 2 else "owner/name"
    return f"use {' or '.join(found) or 'snapshots/<commit>'}, or hub:{name}"


def _hint(path: Path) -> str:
    """Returns a hint at what the user may have meant: `owner/name` is how the Hub writes its
    repositories."""
    meant = path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else ""
    hub = f'did you mean "hub:{meant}"?' if meant.count("/") == 1 else (
        "hub:owner/name is a repository of the Hugging Face Hub"
    )
    return f"a checkpoint is a folder in diffusers' layout, or a .safetensors file; {hub}"
