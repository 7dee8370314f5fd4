"""Opens a finished bundle by its place: a folder in one of the known layouts, a zip, the Hub.

It may hold one variant or many; which is taken is reported.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from sdbuild.base.errors import BundleError
from sdbuild.base.filenames import contents
from sdbuild.base.parsing import shown
from sdbuild.base.suggestions import did_you_mean
from sdbuild.base.zips import Zip
from sdbuild.bundle.inferred import NO_TOKENIZER, infer, tokenizer_in
from sdbuild.bundle.inside import check_inside
from sdbuild.bundle.manifest import MANIFEST, Bundle, load_bundle
from sdbuild.checkpoints.hub.hub import check_place, is_hub, open_hub
from sdbuild.checkpoints.single_file import CLIP
from sdbuild.families.model_names import NAMES, part_of
from sdbuild.families.nouns import chunk_names
from sdbuild.mil.compile.compile import compile_package
from sdbuild.mil.files.suffixes import COMPILED, PACKAGE

_VARIANTS = ("original/compiled", "original/packages", "split_einsum_v2/compiled",
             "split_einsum_v2/packages", "split_einsum/compiled", "split_einsum/packages",
             "Resources", "")
"""Subfolders that hold a variant's models, in order of preference.

Source:
    The layout of Apple's repositories on the Hub, and of what its converter writes.
"""
_DEEPEST = 3


@contextmanager
def opened(
    where: Path, variant: str | None = None, prediction_type: str | None = None
) -> Iterator[tuple[Bundle, list[str]]]:
    """The bundle in a folder, a zip or a repository of the Hub, and what was assumed of it.

    Args:
        variant: the folder in it, such as `split_einsum/compiled`, where there are several.
    Raises:
        BundleError: there is none.
        SourceError: the Hub does not have it.
    """
    with located(where, variant) as (folder, notes):
        bundle, more = bundle_in(folder, prediction_type)
        yield bundle, [*notes, *more]


def bundle_in(folder: Path, prediction_type: str | None = None) -> tuple[Bundle, list[str]]:
    """Returns the bundle whose models lie in a folder, and what was assumed of it.

    Raises:
        BundleError: there is none.
    """
    if (folder / MANIFEST).is_file():
        return load_bundle(folder), []
    return infer(folder, prediction_type)


@contextmanager
def located(where: Path, variant: str | None = None) -> Iterator[tuple[Path, list[str]]]:
    """The folder with the models of the bundle at a place, whatever their state, and which variant
    was taken.

    Raises:
        BundleError: there are none.
        SourceError: the Hub does not have it.
    """
    if is_hub(str(where)):
        with _of_hub(str(where), variant) as found:
            yield found
    elif where.is_file():
        with _unpacked(where) as folder:
            yield _in_folder(folder, where, variant)
    else:
        yield _in_folder(where, where, variant)


def _in_folder(folder: Path, where: Path, variant: str | None) -> tuple[Path, list[str]]:
    if (folder / MANIFEST).is_file() and variant is None:
        return folder, []
    if not folder.is_dir():
        raise BundleError(f"{shown(folder)}: there is no such folder or file",
                          hint="use a bundle's folder, a zip, or hub:owner/name")
    if folder.suffix in (COMPILED, PACKAGE):
        raise BundleError(f"{shown(folder)}: one model, expected a folder of all that a bundle has",
                          hint=f"use the folder that it is in: {shown(folder.absolute().parent)}")
    check_inside(folder)
    files = [path.relative_to(folder).as_posix() for path in _below(folder)]
    found = _chosen(files, variant, shown(where))
    return folder / found, _taken(found, files)


def has_bundle(folder: Path) -> bool:
    """Whether a folder contains a bundle: its manifest or its models."""
    return (folder / MANIFEST).is_file() or any(_below(folder))


@contextmanager
def as_compiled(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """The folder that apps are given: with models compiled and named as in bundles, and a
    tokenizer, if there are packages in it; else itself.

    Raises:
        InvalidProgram, UnsupportedFormat: a package is not sound.
    """
    packages = {path: part for path in contents(folder, PACKAGE) if (part := part_of(path.stem))}
    if not packages or contents(folder, COMPILED):
        yield folder, []
        return
    with tempfile.TemporaryDirectory(prefix="sdbuild-") as made:
        target = Path(made, folder.name)
        target.mkdir()
        for path, part in packages.items():
            name = chunk_names(NAMES[part.component][0], 2)[part.chunk - 1] if part.chunk \
                else NAMES[part.component][0]
            compile_package(path, target / (name + COMPILED), is_linked=True)
        tokenizer = tokenizer_in(folder)
        for name in ("vocab.json", "merges.txt"):
            shutil.copyfile((tokenizer or CLIP) / name, target / name)
        clip = [] if tokenizer else [NO_TOKENIZER]
        yield target, ["packages, checked as they are once compiled", *clip]


def _below(folder: Path, depth: int = 0) -> Iterator[Path]:
    """Yields the models in a folder and in those below it, without what is in them."""
    for path in sorted(folder.iterdir()):
        if path.suffix in (COMPILED, PACKAGE):
            yield path
        elif path.is_dir() and depth < _DEEPEST:
            yield from _below(path, depth + 1)


def _folders(models: Sequence[str]) -> list[str]:
    """Returns the folders that models are in; empty text is the bundle's own."""
    return sorted({str(PurePosixPath(path).parent).removeprefix(".") for path in models
                   if "controlnet" not in PurePosixPath(path).parts})


def _taken(found: str, models: Sequence[str]) -> list[str]:
    """Returns a note on which variant is taken, where there is a choice."""
    return [f"variant={found or '.'} is taken"] if len(_folders(models)) > 1 else []


def _chosen(models: Sequence[str], variant: str | None, where: str) -> str:
    """Returns the folder whose models are taken, of the paths of all.

    Raises:
        BundleError: there are no models, or no such variant.
    """
    folders = _folders(models)
    if not folders:
        raise BundleError(f"{where}: no {COMPILED} and no {PACKAGE} in it",
                          hint="a finished bundle has models; sdbuild build makes them")
    if variant is not None:
        wanted = variant.strip("/").removeprefix(".")
        fits = [folder for folder in folders if folder == wanted or folder.endswith(f"/{wanted}")
                or folder.startswith(f"{wanted}/")]
        if not fits:
            named = ", ".join(folder or "." for folder in folders)
            raise BundleError(f"{where}: no variant {shown(variant)}"
                              f"{did_you_mean(wanted, folders)}",
                              hint=f"its variants are: {named}" if any(folders) else
                                   "it has no variants: leave variant out")
        return fits[0]
    for name in _VARIANTS:
        for folder in folders:
            if folder == name or (name and folder.endswith(f"/{name}")):
                return folder
    return folders[0]


@contextmanager
def _of_hub(place: str, variant: str | None) -> Iterator[tuple[Path, list[str]]]:
    """The files of one variant in a repository, as a folder of links to the Hub's cache."""
    try:
        hub = open_hub(check_place(place), {})
    except ValueError as error:
        raise BundleError(f"{place}: expected {error}") from error
    models = {parts for name in hub.names if (parts := _model_of(name))}
    found = _chosen(sorted(models), variant, place)
    prefix = f"{found}/" if found else ""
    names = [name for name in hub.names if name.startswith(prefix) and (
        _model_of(name) or "/" not in name.removeprefix(prefix))]
    files = {name: hub.file(name).resolve() for name in names}
    beside = files[names[0]].parents[2]  # the Hub's cache: links do not go to another disk
    with tempfile.TemporaryDirectory(prefix="sdbuild-", dir=beside) as made:
        folder = Path(made, PurePosixPath(place.removeprefix("hub:").partition("@")[0]).name, found)
        for name, source in files.items():
            target = folder / name.removeprefix(prefix)
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(source, target)
        yield folder, [f"{hub.place}: {note}" for note in _taken(found, sorted(models))]


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # some file systems have none
        shutil.copyfile(source, target)


def _model_of(name: str) -> str:
    """Returns the model that a file is of; empty if it is of none, or leads out of its folder."""
    parts = PurePosixPath(name).parts
    if ".." in parts or name.startswith("/"):
        return ""
    for index, part in enumerate(parts[:-1], 1):
        if part.endswith((COMPILED, PACKAGE)):
            return "/".join(parts[:index])
    return ""


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """A zip's files in a folder that is gone afterwards.

    Raises:
        BundleError: it is no zip, or one that no bundle is in.
    """
    with tempfile.TemporaryDirectory(prefix="sdbuild-") as made:
        folder = Path(made, path.stem)
        folder.mkdir()
        Zip(path, BundleError).extract_all(folder)
        yield folder
