"""Files that are all read, in their order: not a checkpoint, but what is added to one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints.folder import DigestOf
from sdbuild.checkpoints.loras.config import CONFIG
from sdbuild.checkpoints.single_file import SUFFIX
from sdbuild.safetensors.pickles import UNPICKLE


class Files:
    """Some safetensors files.

    Raises:
        SourceError: one is not there, or is something else.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.places = tuple(paths)
        for place in paths:
            path = Path(place)
            if not path.is_file():
                raise SourceError(f"{place}: there is no such file")
            if path.suffix != SUFFIX:
                raise SourceError(f"{place}: expected a {SUFFIX} file", hint=UNPICKLE)

    def __repr__(self) -> str:
        return ", ".join(self.places)

    def identity(self, part: str, digest_of: DigestOf) -> dict[str, str]:
        """The digest of each, by its place in the order, and of what peft writes beside one."""
        found = {}
        for i, place in enumerate(self.places):
            found[str(i)] = digest_of(Path(place))
            config = Path(place).with_name(CONFIG)
            if config.is_file():
                found[f"{i}/{CONFIG}"] = digest_of(config)
        return found
