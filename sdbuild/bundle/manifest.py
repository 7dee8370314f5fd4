"""A finished bundle: a folder that describes itself in `manifest.json`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sdbuild.base.digest import digest_file
from sdbuild.base.errors import BundleError
from sdbuild.base.parsing import Fields, json_file, shown
from sdbuild.bundle.inside import check_inside
from sdbuild.checkpoints.schedule import check_schedule
from sdbuild.families.nouns import size_name, size_text
from sdbuild.store.roots import MANIFEST as MANIFEST
from sdbuild.store.scan import files

SCHEMA = 1
OWN_BITS = "bits of each weight"
"""Said of weights that have bits of their own, in place of a number."""
_LARGEST_PX = 1 << 14
_LEAST_SCALE = 1e-3
_MOST_LAYERS = 100
_LARGEST_SHIFT = 1e3
_LONGEST_NAME = 200
"""In bytes: file systems have 255, and a number and a suffix come after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle as a host needs to know it.

    Attributes:
        models: the compiled models of each component, the chunks in order.
        scheduler: diffusers' config of the checkpoint's own, whose `prediction_type` may be
            another than the bundle's.
        defaults: the recommended settings of images.
        tokenizer: the folder of its files, the bundle's own if None.
        tokenizer_3: the name of the file of T5's tokenizer, in the bundle's folder.
        shift_factor: is subtracted from latents before they are scaled.
        pad_token_2: that of the second text encoder.
        clip_skip: the layer of the text encoder that gives the embedding, from the last one, 1.
        zeroes_empty: diffusers gives a negative prompt that is left out an embedding of zeros.
        sizes: those of a bundle that has several, the first one that of hosts which choose none.
        words: for each embedding the words that stand for it in a prompt, one for each vector.
        functions: the function to run of each component whose models have one for each size.
    """

    folder: Path
    name: str
    family: str
    width_px: int
    height_px: int
    attention: str
    scale_factor: float
    pad_token: str
    prediction_type: str
    scheduler: Mapping[str, Any]
    models: Mapping[str, tuple[Path, ...]]
    defaults: Mapping[str, Any]
    description: str
    tokenizer: Path | None = None
    tokenizer_3: str = "tokenizer.json"
    shift_factor: float = 0.0
    pad_token_2: str = "!"
    zeroes_empty: bool = True
    clip_skip: int = 1
    sizes: tuple[tuple[int, int], ...] = ()
    words: tuple[tuple[str, ...], ...] = ()
    functions: Mapping[str, str] = field(default_factory=dict)

    def at(self, size: tuple[int, int]) -> Bundle:
        """Returns the bundle with which pictures of a size are drawn.

        Raises:
            BundleError: it has none of that size.
        """
        if size == (self.width_px, self.height_px):
            return self
        if size not in self.sizes:
            known = self.sizes or ((self.width_px, self.height_px),)
            raise BundleError(
                f"{self.folder}: no images of {size_text(size)}, only of "
                f"{', '.join(map(size_text, known))}",
                hint=f"build it with size={','.join(map(size_text, (*known, size)))} target=iOS18")
        name = size_name(*size)
        return replace(self, width_px=size[0], height_px=size[1],
                       functions=dict.fromkeys(self.functions, name))


def load_bundle(folder: Path) -> Bundle:
    """Returns the bundle in a folder, which may be of anybody: whatever it names lies in it.

    Raises:
        BundleError: there is none, a field of its manifest is not what it must be, a file is
            missing or has another size, or something leads out of it; says which.
    """
    fields = read_manifest(folder)
    check_inside(folder)
    _check_files(folder, fields)
    components = _components(fields)
    scheduler = fields.fields("scheduler")
    check_schedule(scheduler.values, scheduler.where, BundleError)
    sizes = _sizes(fields)
    return Bundle(
        folder=folder,
        name=_name(fields),
        family=fields.text("family"),
        width_px=fields.integer("width_px", low=1, high=_LARGEST_PX),
        height_px=fields.integer("height_px", low=1, high=_LARGEST_PX),
        attention=fields.text("attention"),
        scale_factor=fields.number("scale_factor", low=_LEAST_SCALE, high=1 / _LEAST_SCALE),
        pad_token=fields.text("pad_token"),
        prediction_type=fields.text("prediction_type"),
        scheduler=scheduler.values,
        models={name: _models(folder, entry) for name, entry in components.items()},
        defaults=fields.fields("draw").values,
        description=_describe(fields, components),
        clip_skip=fields.integer("clip_skip", low=1, high=_MOST_LAYERS, default=1),
        shift_factor=fields.number("shift_factor", low=-_LARGEST_SHIFT, high=_LARGEST_SHIFT,
                                   default=0.0),
        pad_token_2=fields.text("pad_token_2", default="!"),
        zeroes_empty=fields.flag("force_zeros_for_empty_prompt", default=True),
        sizes=sizes,
        words=_words(fields),
        functions={name: size_name(*sizes[0]) for name, entry in components.items()
                   if sizes and entry.flag("has_sizes", default=False)},
    )


def _words(fields: Fields) -> tuple[tuple[str, ...], ...]:
    found = fields.listed("words", list, default=[])
    if not all(words and all(isinstance(word, str) and word for word in words) for words in found):
        raise BundleError(f"{fields.where}: words is {shown(found)}, expected lists of words",
                          hint="build the bundle again")
    return tuple(map(tuple, found))


def read_manifest(folder: Path) -> Fields:
    """Returns the fields of a bundle's manifest.

    Raises:
        BundleError: there is none, or it is not of this schema.
    """
    path = folder / MANIFEST
    if not os.path.lexists(path):
        raise BundleError(
            f"{shown(folder)}: no {MANIFEST}, expected the folder of a finished bundle",
            hint="sdbuild build puts bundles below bundles/",
        )
    found = json_file(path, BundleError, has_infinities=True)  # as scheduler configs have
    if found.get("schema") != SCHEMA:
        raise BundleError(f"{shown(path)}: not a manifest of schema {SCHEMA}")
    return Fields(found, shown(path), BundleError)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest of a bundle that is laid out, with size and digest of every file in it,
    so that it can be checked wherever it goes."""
    listed = {
        path.relative_to(folder).as_posix(): [path.stat().st_size, digest_file(path)]
        for path in files(folder)
    }
    content = {**manifest, "files": listed}
    (folder / MANIFEST).write_text(
        json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8"
    )


def _name(fields: Fields) -> str:
    """Returns the bundle's name, which pictures are called after: one that stays in their
    folder."""
    name = fields.text("name")
    if (name.startswith((".", "-")) or set(name) & set("/\\:\n\t")
            or len(name.encode()) > _LONGEST_NAME):
        raise BundleError(f"{fields.where}: name is {shown(name)}, expected the name of a file")
    return name


def _sizes(fields: Fields) -> tuple[tuple[int, int], ...]:
    """Returns the sizes of a bundle that has several, of which the first is its own."""
    found = [Fields({"size": pair}, f"{fields.where}: sizes", BundleError).listed("size", int)
             for pair in fields.listed("sizes", list, default=())]
    own = [fields.integer(name, low=1, high=_LARGEST_PX) for name in ("width_px", "height_px")]
    if found and (found[0] != own or any(len(pair) != 2 for pair in found)):
        raise BundleError(f"{fields.where}: sizes is {shown(found)}, expected pairs of width and "
                          f"height, the first one {own}")
    return tuple((width, height) for width, height in found)


def _components(fields: Fields) -> dict[str, Fields]:
    found = fields.fields("components")
    return {name: found.fields(name) for name in found.values}


def _models(folder: Path, entry: Fields) -> tuple[Path, ...]:
    """Returns the compiled models of a component, each a folder in the bundle."""
    names = entry.listed("models", str)
    for name in names:
        if not _is_inside(name) or not (folder / name).is_dir():
            raise BundleError(f"{entry.where}: models has {shown(name)}, "
                              "expected the folder of a model in the bundle")
    if not names:
        raise BundleError(f"{entry.where}: no models, expected at least one")
    return tuple(folder / name for name in names)


def _is_inside(name: str) -> bool:
    """Whether a path in a manifest is one below the manifest's folder, as far as it tells."""
    return all(part not in ("", ".", "..") for part in name.split("/")) and "\\" not in name


def listed_files(folder: Path, fields: Fields) -> dict[str, tuple[int, str]]:
    """Returns size and digest of each file that a bundle's manifest lists, by its path.

    Raises:
        BundleError: one leads out of the folder, or says neither.
    """
    found = {}
    for name, entry in fields.fields("files").values.items():
        match entry:
            case [int(size), str(digest)] if _is_inside(name):
                found[name] = size, digest
            case _:
                raise BundleError(f"{shown(folder / MANIFEST)}: files has {shown(name)} with "
                                  f"{shown(entry)}, expected a file in it with its size and digest")
    return found


def _check_files(folder: Path, fields: Fields) -> None:
    for name, (size, _) in listed_files(folder, fields).items():
        path = folder / name
        if not path.is_file():
            raise BundleError(
                f"{folder}: {name} is missing", hint="build the bundle again", file=name
            )
        if path.stat().st_size != size:
            raise BundleError(
                f"{path}: {path.stat().st_size} bytes, expected {shown(size)}",
                hint="build the bundle again", file=name,
            )


def own_bits(manifest: Fields) -> frozenset[str]:
    """Returns the components whose weights have bits of their own."""
    return frozenset(manifest.fields("bits", default={}).fields("components", default={}).values)


def _describe(fields: Fields, components: Mapping[str, Fields]) -> str:
    """Returns the bundle in a few words, for the pictures that it draws."""
    bits = [entry.integer("nbits", low=1, high=16, default=0) for entry in components.values()]
    weights = OWN_BITS if own_bits(fields) else f"{max(bits)} bit" if any(bits) else "fp16"
    return (f"{fields.text('name')}, {weights}, {fields.text('attention')}, "
            f"{fields.text('target')}")
