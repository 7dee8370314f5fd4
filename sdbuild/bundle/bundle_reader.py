"""A bundle's folder, opened as its hosts see it: names, features and metadata. No weights.

What cannot be read is not an error here: it is kept as a `problem`, for the rules to tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbuild.base.errors import MILError
from sdbuild.base.filenames import contents
from sdbuild.base.parsing import json_value, read_file, shown
from sdbuild.bundle.manifest import MANIFEST
from sdbuild.mil.files.compiled import DESCRIPTION_FILE
from sdbuild.mil.files.coremldata import unpack_description
from sdbuild.mil.files.suffixes import COMPILED
from sdbuild.mil.ir.proto import Message

SUFFIX = COMPILED
_LARGEST_BYTES = 1 << 28
"""Far above any file of a bundle but weights, which nobody reads here."""
_DTYPES = {65568: "fp32", 65552: "fp16", 131104: "int32", 65600: "fp64"}
"""`ArrayFeatureType` in `FeatureTypes.proto` of the Core ML specification."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """An input or output as a model declares it; what is no array has no shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A compiled model; without features if its description has a `problem`."""

    file: str
    path: Path
    inputs: Mapping[str, Feature]
    outputs: Mapping[str, Feature]
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A bundle's folder; `models` are all compiled models in it, by name without the suffix.

    `manifest` is sdbuild's, and empty where there is none.
    """

    folder: Path
    names: frozenset[str]
    models: Mapping[str, Compiled]
    manifest: Mapping[str, Any]

    def each(self, *wanted: str) -> Iterator[Compiled]:
        """Those of the models that are here and can be read."""
        for name in wanted:
            model = self.models.get(name)
            if model is not None and not model.problem:
                yield model

    @property
    def unet(self) -> tuple[Compiled, ...]:
        """The U-Net as hosts run it, both chunks before the whole; none if it cannot be read."""
        chunks = tuple(self.each("UnetChunk1", "UnetChunk2"))
        has_both = {"UnetChunk1", "UnetChunk2"} <= self.models.keys()
        return (chunks if len(chunks) == 2 else ()) if has_both else tuple(self.each("Unet"))


def open_bundle(folder: Path) -> Opened:
    """The bundle in a folder, whatever its state."""
    found = frozenset(path.name for path in contents(folder))
    return Opened(
        folder=folder,
        names=found,
        models={
            name.removesuffix(SUFFIX): _open_model(folder / name)
            for name in sorted(found) if name.endswith(SUFFIX)
        },
        manifest=_manifest(folder / MANIFEST),
    )


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: there is none, or it is not JSON; the message is short.
    """
    return json_value(read_bytes(path), shown(path), _short(path), has_infinities=True,
                      has_controls=True)


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        ValueError: there is none, or it is no file, or far too large; the message is short.
    """
    return read_file(path, _short(path), most_bytes=_LARGEST_BYTES)


def _short(path: Path) -> Callable[..., ValueError]:
    """Makes errors that do not name the path, as whoever reports them does."""
    def error(message: str, **_: str) -> ValueError:
        return ValueError(message.removeprefix(f"{shown(path)}: "))
    return error


def _manifest(path: Path) -> Mapping[str, Any]:
    try:
        found = read_json(path)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _open_model(path: Path) -> Compiled:
    try:
        data = read_bytes(path / DESCRIPTION_FILE)
        _, description = unpack_description(data, DESCRIPTION_FILE)
    except ValueError as error:
        return _broken(path, f"{DESCRIPTION_FILE}: {error}")
    except MILError as error:
        return _broken(path, error.message)
    return Compiled(
        file=path.name, path=path, inputs=_features(description.input),
        outputs=_features(description.output),
    )


def _broken(path: Path, problem: str) -> Compiled:
    return Compiled(file=path.name, path=path, inputs={}, outputs={}, problem=problem)


def _features(described: Message) -> dict[str, Feature]:
    return {feature.name: _feature(feature) for feature in described}


def _feature(feature: Message) -> Feature:
    kind = feature.type.WhichOneof("Type")
    if kind != "multiArrayType":
        return Feature(name=feature.name, dtype=str(kind), shape=())
    array = feature.type.multiArrayType
    dtype = _DTYPES.get(array.dataType, f"type {array.dataType}")
    return Feature(name=feature.name, dtype=dtype, shape=tuple(array.shape))
