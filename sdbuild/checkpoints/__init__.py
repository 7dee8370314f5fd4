"""Sources of checkpoints: one file a kind, found by `_opened`.

A place is opened as a `Checkpoint`, which gives every part of a pipeline in diffusers' terms,
whatever form it is kept in. A part is the folder of a component (`unet`, `vae`), or `RESOURCES`;
`scheduler` and `tokenizer`, which are among these, have an identity of their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sdbuild.base import zips
from sdbuild.base.errors import SourceError
from sdbuild.checkpoints import links
from sdbuild.checkpoints.beside import Beside
from sdbuild.checkpoints.folder import DigestOf, Folder
from sdbuild.checkpoints.hub import hub
from sdbuild.checkpoints.hub.hub import is_hub
from sdbuild.checkpoints.layout import COMMAS, RESOURCES
from sdbuild.checkpoints.packages import LocalPlace, Packages, are_packages
from sdbuild.checkpoints.single_file import SUFFIX, SingleFile
from sdbuild.checkpoints.zipped import ZippedPlace
from sdbuild.mil.files.suffixes import COMPILED, PACKAGE
from sdbuild.safetensors.pickles import PICKLES, UNPICKLE

if TYPE_CHECKING:
    from sdbuild.safetensors.tensors import Tensor

__all__ = [
    "RESOURCES",
    "Checkpoint",
    "Facts",
    "check_place",
    "combine_errors",
    "expand_user",
    "fixed",
    "is_hub",
    "named",
    "open_checkpoint",
]

Facts = MutableMapping[str, Any]
"""A cache of facts that never change, such as the files of a commit. It may outlive the process,
and grows: a place that is in it needs no network."""


class Checkpoint(Protocol):
    """A checkpoint at one place."""

    place: str
    """The location, exact enough to open the same checkpoint again."""

    @property
    def origin(self) -> Mapping[str, Any]:
        """Returns the facts of its origin that a record keeps."""

    def identity(self, part: str, digest_of: DigestOf) -> Mapping[str, str]:
        """Returns what the part's content depends on: a digest for each name. Light; part of a
        key."""

    def has(self, part: str) -> bool:
        """Whether it has the component."""

    def config(self, part: str) -> Mapping[str, Any]:
        """Returns the part's config, as diffusers writes it in `config.json`."""

    def tensors(self, part: str) -> Mapping[str, Tensor]:
        """Returns the part's tensors, by diffusers' names."""

    def resources(self) -> Mapping[str, bytes]:
        """Returns the files that are no networks, by their paths in diffusers' layout."""


def open_checkpoint(
    places: Sequence[str], facts: Facts, config: str = "", beside: Sequence[str] = ()
) -> Checkpoint:
    """Returns the checkpoint at the first of the places that has one.

    Args:
        config: a folder that says what a single file does not.
        beside: the place of a checkpoint to use a single network with.

    Raises:
        SourceError: none of them has; says of each why not.
    """
    problems = []
    for place in places:
        try:
            found = _opened(place, facts, config)
            return Beside(found, open_checkpoint(beside, facts, config)) if beside else found
        except SourceError as error:
            problems.append(error)
    raise combine_errors(problems)


def combine_errors(problems: Sequence[SourceError]) -> SourceError:
    """Returns one error for the errors of all locations; of their kind if it is the same."""
    if len(problems) == 1:
        return problems[0]
    kinds = {type(error) for error in problems}
    hints = [error.hint for error in problems if error.hint]
    if any("there is no such f" in error.message for error in problems):
        hints.append(COMMAS)
    kind = kinds.pop() if len(kinds) == 1 else SourceError
    return kind(
        "the checkpoint was not found:\n  " + "\n  ".join(e.message for e in problems),
        hint="\n      ".join(dict.fromkeys(hints)),
    )


@contextlib.contextmanager
def named(place: str, config: str = "") -> Iterator[None]:
    """Names the checkpoint, and the folder with its configs, in errors that do not name it yet."""
    try:
        yield
    except SourceError as error:
        if any(name and name in error.message for name in (place, config)):
            raise
        where = f"{place} with config={config}" if config else place
        raise type(error)(f"{where}: {error.message}", hint=error.hint, **error.facts) from error


def check_place(text: str) -> str:
    """Returns the text, if it can name a place.

    Raises:
        ValueError: it cannot; says what is expected.
    """
    return hub.check_place(text)


def expand_user(text: str) -> Path:
    """Returns the path, with `~` for a home; `~` before the name of no user is a name like any
    other."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def resolve_place(place: str, base: Path) -> str:
    """Returns the place, independent of the current folder: a path becomes absolute."""
    return place if is_hub(place) else str(links.absolute(base / expand_user(place)))


def _opened(place: str, facts: Facts, config: str) -> Checkpoint:
    """Returns the checkpoint at one place, by the kind that its name tells."""
    if is_hub(place):
        found = hub.open_hub(place, facts)
        return Packages(found) if are_packages(found.names) else found
    path = Path(place)
    if path.suffix == SUFFIX and not path.is_dir():
        return SingleFile(path, _config_folder(config) if config else None)
    if path.suffix in PICKLES and path.is_file():
        raise SourceError(
            f"{place} is a pickle, which can run code when it is read; expected {SUFFIX}",
            hint=UNPICKLE,
        )
    if path.suffix in (PACKAGE, COMPILED):
        raise SourceError(f"{place}: a single model, expected the folder with all models of a "
                          "bundle", hint=f"source={path.parent}")
    if path.is_file() and path.suffix.lower() == zips.SUFFIX:
        return _zipped(path, facts)
    if path.is_file():
        raise SourceError(f"{place}: expected a folder or a {SUFFIX} file",
                          hint="finished models may be in a .zip too")
    folder = Folder(path)
    local = LocalPlace(path)
    return Packages(local) if are_packages(local.names) else folder


def _zipped(path: Path, facts: Facts) -> Packages:
    found = ZippedPlace(path, facts)
    if not are_packages(found.names):
        raise SourceError(f"{path}: no finished models in it, which alone are read from a zip",
                          hint="unzip a checkpoint, and name its folder or file")
    return Packages(found)


def _config_folder(config: str) -> Folder:
    if not Path(config).is_dir():
        raise SourceError(f"config={config}: there is no such folder",
                          hint="config=FOLDER, in diffusers' layout, says what a single file does "
                               "not; without it, that is inferred from the file")
    return Folder(Path(config))
