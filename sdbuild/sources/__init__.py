"""Where checkpoints come from. One file a kind of place; today: a folder (`folder.py`).

A place is opened as a `Checkpoint`, which gives every part of a pipeline in diffusers' terms,
whatever form it is kept in. A part is the folder of a component (`unet`, `vae`), or `RESOURCES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sdbuild.errors import SourceError
from sdbuild.sources.folder import RESOURCES, DigestOf, Folder

if TYPE_CHECKING:
    from sdbuild.sources.tensors import Tensor

__all__ = ["RESOURCES", "Checkpoint", "open_checkpoint"]


class Checkpoint(Protocol):
    """A checkpoint at one place."""

    def identity(self, part: str, digest_of: DigestOf) -> Mapping[str, str]:
        """What the part's content depends on: a digest for each name. Light; part of a key."""

    def config(self, part: str) -> Mapping[str, Any]:
        """The part's config, as diffusers writes it in `config.json`."""

    def tensors(self, part: str) -> Mapping[str, Tensor]:
        """The part's tensors, by diffusers' names."""

    def resources(self) -> Mapping[str, bytes]:
        """The files that are no networks, by their paths in diffusers' layout."""


def open_checkpoint(places: Sequence[str]) -> Checkpoint:
    """The checkpoint at the first of the places that has one.

    Raises:
        SourceError: none of them has; says of each why not.
    """
    problems = []
    for place in places:
        try:
            return _opened(place)
        except SourceError as error:
            if len(places) == 1:
                raise
            problems.append(f"{place}: {error.message}")
    raise SourceError("no place has the checkpoint:\n  " + "\n  ".join(problems))


def _opened(place: str) -> Checkpoint:
    """The checkpoint at one place, by the kind that its name tells."""
    return Folder(Path(place))
