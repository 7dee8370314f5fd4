"""Finished models in the place of a checkpoint: packages, or compiled models, of any maker.

They lie in a folder or in a repository of the Hub, in several variants or in one: flat, or in
`original/packages`, `split_einsum/compiled` and so on, as Apple publishes them. All that comes
after conversion can be done to them. A part is the layout of attention and a component:
`split_einsum/unet`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from sdbuild.base.errors import MILError, SourceError
from sdbuild.base.filenames import contents, is_system_file
from sdbuild.base.parsing import looks_like, read_file
from sdbuild.checkpoints import layout, links
from sdbuild.checkpoints.resources import LARGEST_BYTES, SCHEDULER, TOKENIZER
from sdbuild.checkpoints.single_file import CLIP, SD_SCHEDULER, XL_SCHEDULER
from sdbuild.families.model_names import part_of
from sdbuild.mil.files.suffixes import COMPILED, PACKAGE

if TYPE_CHECKING:
    from sdbuild.checkpoints import Checkpoint
    from sdbuild.checkpoints.folder import DigestOf
    from sdbuild.safetensors.tensors import Tensor

LAYOUTS = ("split_einsum_v2", "split_einsum", "original")
"""The words for a layout of attention in the name of a folder, the longest first."""

_DEEPEST = 2
"""Folders between that of a user's and models."""
_HEAD_BYTES = 1024
_WEIGHTS = "weights"
_VARIANTS = (*LAYOUTS, "packages", "compiled", "resources")
_NOT_A_CHECKPOINT = ("lower=packages uses them as they are, and without model= the recipe is found")


class Place(Protocol):
    """Files at a place: a folder, or a commit of a repository."""

    place: str

    @property
    def origin(self) -> Mapping[str, Any]:
        """Returns the facts of its origin that a record keeps."""

    @property
    def names(self) -> Iterable[str]:
        """The paths of its files."""

    def file(self, name: str) -> Path:
        """Returns one of them."""

    def digest(self, name: str, digest_of: DigestOf) -> str:
        """Returns the digest of one of them."""


class LocalPlace:
    """The models of a folder, and the files beside them."""

    def __init__(self, folder: Path) -> None:
        self.place = str(folder)
        self._folder = folder

    @property
    def origin(self) -> dict[str, Any]:
        """Nothing: where a folder lies on some machine is nobody else's business."""
        return {}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The paths of the files in models, and of those beside models."""
        return tuple(path.relative_to(self._folder).as_posix() for path in _files(self._folder))

    def file(self, name: str) -> Path:
        """Returns one of them.

        Raises:
            SourceError: it is a link that leads out of the folder.
        """
        return links.inside(self._folder, name)

    def digest(self, name: str, digest_of: DigestOf) -> str:
        """Returns the digest of one of them."""
        return digest_of(self.file(name))


def _files(folder: Path, depth: int = 0) -> Iterator[Path]:
    for path in contents(folder):
        if not path.is_dir():
            yield path
        elif path.name.endswith((PACKAGE, COMPILED)):
            yield from (found for found in sorted(path.rglob("*"))
                        if not found.is_dir() and not is_system_file(found.name))
        elif depth < _DEEPEST and any(word in path.name.lower() for word in _VARIANTS):
            yield from _files(path, depth + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModel:
    """A model of a component; `files` are their paths in it."""

    path: str
    component: str
    chunk: int
    files: tuple[str, ...]

    @property
    def layout(self) -> str:
        """The layout of attention that its folders are called after; empty if they are not."""
        return layout_in(PurePosixPath(self.path).parts[:-1])


def layout_in(folders: Iterable[str]) -> str:
    """Returns the layout of attention in the names of folders, the last first; empty if there is
    none."""
    return next((word for name in reversed([*folders]) for word in LAYOUTS
                 if word in name.lower()), "")


def models_in(names: Iterable[str]) -> list[FoundModel]:
    """Returns the models of components among files, by their paths: packages first."""
    files: dict[str, list[str]] = {}
    for name in names:
        parts = PurePosixPath(name).parts
        number = next((i for i, part in enumerate(parts[:-1], 1)
                       if part.endswith((PACKAGE, COMPILED))), None)
        if number is not None and ".." not in parts:
            files.setdefault("/".join(parts[:number]), []).append("/".join(parts[number:]))
    found = [
        FoundModel(path=path, component=part.component, chunk=part.chunk, files=tuple(inside))
        for path, inside in files.items() if (part := part_of(PurePosixPath(path).stem))
    ]
    return sorted(found, key=lambda model: (model.path.endswith(COMPILED), model.path))


class Packages:
    """Finished models at a place."""

    def __init__(self, where: Place) -> None:
        self._where = where
        self.place = where.place
        self.models = models_in(where.names)

    def __repr__(self) -> str:
        return self.place

    @property
    def origin(self) -> Mapping[str, Any]:
        """Returns the facts of its origin that a record keeps."""
        return self._where.origin

    @property
    def layouts(self) -> tuple[str, ...]:
        """The layouts of attention that there are U-Nets of, `original` first; the empty one if a
        folder is not called after any."""
        found = {model.layout for model in self.models if model.component == "unet"}
        return tuple(sorted(found, key=lambda word: (word == "", word)))

    def components(self, attention: str) -> tuple[str, ...]:
        """Returns the components that there are whole models of, in a layout of attention."""
        return tuple(dict.fromkeys(
            model.component for model in self._of(attention) if not model.chunk))

    def identity(self, part: str, digest_of: DigestOf) -> dict[str, str]:
        """Returns the digest of each file of a part, whatever its model is called.

        Raises:
            SourceError: there is no such model.
        """
        if part == layout.RESOURCES:
            named = {**self._tokenizer(), **{name: name for name in self._cards()}}
            return {n: self._where.digest(name, digest_of) for n, name in named.items()} or {
                n: digest_of(CLIP / n) for n in ("vocab.json", "merges.txt")}
        model = self.model(part)
        return {name: self._where.digest(f"{model.path}/{name}", digest_of)
                for name in model.files}

    def has(self, part: str) -> bool:
        """Whether it has the component."""
        return any(model.component == part for model in self.models)

    def config(self, part: str) -> NoReturn:
        """Raises SourceError: there is none."""
        raise self._finished(part)

    def tensors(self, part: str) -> Mapping[str, Tensor]:
        """Raises SourceError: they are in programs."""
        raise self._finished(part)

    def resources(self) -> dict[str, bytes]:
        """Returns the tokenizer, CLIP's own if there is none, the schedule that hosts take for
        granted, card and licence."""
        own = {f"{TOKENIZER.folder}/{name}": read_file(
            self._where.file(path), SourceError, most_bytes=LARGEST_BYTES)
            for name, path in self._tokenizer().items()}
        clip = {} if own else {TOKENIZER.vocabulary: (CLIP / "vocab.json").read_bytes(),
                               TOKENIZER.merges: (CLIP / "merges.txt").read_bytes()}
        schedule = XL_SCHEDULER if self.has("text_encoder_2") else SD_SCHEDULER
        return {
            **own, **clip,
            SCHEDULER: json.dumps(schedule | {"prediction_type": "epsilon"}, indent=2).encode(),
            **{name: read_file(self._where.file(name), SourceError, most_bytes=LARGEST_BYTES)
               for name in self._cards()},
        }

    def _fetch(self, part: str, target: Path, has_weights: bool) -> Path:
        """Returns a copy of the model of a part, in the folder `target`."""
        model = self.model(part)
        folder = target / PurePosixPath(model.path).name
        for name in model.files:
            if has_weights or _WEIGHTS not in PurePosixPath(name).parts:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._where.file(f"{model.path}/{name}"), folder / name)
        return folder

    def _of(self, attention: str) -> list[FoundModel]:
        """Returns the models of a layout; if no folder is called after it, those of no layout."""
        found = [model for model in self.models if model.layout == attention]
        return found or [model for model in self.models if not model.layout]

    @contextmanager
    def reading(
        self, part: str, has_weights: bool = True, beside: Path | None = None
    ) -> Iterator[Path]:
        """A copy of the model of a part, in a folder that is gone afterwards.

        Args:
            beside: a folder on the disk that has room for it, the system's own for such if None.
        Raises:
            SourceError: there is none, a file of it cannot be had, or what reads it finds that it
                is no model.
        """
        with tempfile.TemporaryDirectory(prefix="sdbuild-", dir=beside) as made:
            copy = self._fetch(part, Path(made), has_weights)
            try:
                yield copy
            except MILError as error:
                what, hint = _looks_like(copy)
                path = f"{self.place}/{self.model(part).path}"
                said = f"{path}: {what}, expected a model" if what else \
                    error.message.replace(str(copy), path)
                raise SourceError(said, hint=hint or error.hint) from error

    def model(self, part: str) -> FoundModel:
        """Returns the model of a part.

        Raises:
            SourceError: there is none that is whole, or the part is that of a checkpoint.
        """
        attention, is_finished, component = part.partition("/")
        if not is_finished:
            raise self._finished(part)
        found = [model for model in self._of(attention) if model.component == component]
        whole = [model for model in found if not model.chunk]
        if whole:
            return whole[0]
        if found:
            raise SourceError(
                f"{self.place}: {found[0].path} is a chunk, expected all of {component} in one",
                hint="what was cut is not put together again: use the folder packages, which "
                     "mostly has it whole")
        layouts = ", ".join(filter(None, self.layouts))
        selects = f"its folders are called after {layouts}: attention= selects one, and " \
            if layouts else ""
        raise SourceError(
            f"{self.place}: no model of {component}"
            f"{f' with attention={attention}' if layouts and attention else ''}; "
            f"there are: {', '.join(self.components(attention)) or 'none'}",
            hint=f"{selects}components= leaves out what is not there", part=component)

    def _tokenizer(self) -> dict[str, str]:
        """Returns the paths of a vocabulary and of its merges, by their names."""
        names = set(self._where.names)
        for vocabulary in sorted(name for name in names
                                 if PurePosixPath(name).name == "vocab.json"):
            merges = str(PurePosixPath(vocabulary).with_name("merges.txt"))
            if merges in names:
                return {"vocab.json": vocabulary, "merges.txt": merges}
        return {}

    def _cards(self) -> list[str]:
        return [name for name in layout.CARDS if name in set(self._where.names)]

    def _finished(self, part: str) -> SourceError:
        return SourceError(f"{self.place}: finished models, expected a checkpoint to convert "
                           f"{part} from", hint=_NOT_A_CHECKPOINT, part=part)


def _looks_like(model: Path) -> tuple[str, str]:
    """Returns what the files of a model are that are none of it, such as pointers of Git LFS, and
    what helps; empty if they may be its."""
    for path in sorted(model.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                what, hint = looks_like(file.read(_HEAD_BYTES))
            if what:
                return f"{path.name} is {what}", hint
    return "", ""


def are_packages(names: Iterable[str]) -> bool:
    """Whether files of these paths are finished models, and no checkpoint."""
    names = [*names]
    return bool(models_in(names)) and not any(
        name == "model_index.json" or name.endswith("/config.json") for name in names)


def expect_packages(checkpoint: Checkpoint) -> Packages:
    """Returns the checkpoint, if it is finished models.

    Raises:
        SourceError: it is none.
    """
    if isinstance(checkpoint, Packages):
        return checkpoint
    raise SourceError(f"{checkpoint.place}: a checkpoint, expected finished models in packages",
                      hint="leave lower=packages out to convert it")
