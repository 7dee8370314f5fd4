"""A bundle's folder, opened as its hosts see it: names, features and metadata. No weights.

What cannot be read is not an error here: it is kept as a `problem`, for the rules to tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.base.errors import MILError
from sdbuild.base.filenames import contents
from sdbuild.base.parsing import json_value, read_file, shown
from sdbuild.bundle.manifest import MANIFEST
from sdbuild.mil.files.suffixes import COMPILED

if TYPE_CHECKING:
    from sdbuild.mil.ir.proto import Message

SUFFIX = COMPILED
SD, SDXL, REFINER, SD3 = FAMILY_NAMES = ("sd", "sdxl", "sdxl-refiner", "sd3")
"""The families that hosts tell apart."""
_NETS = "controlnet/"
_DEEPEST = 4
"""Folders below the bundle's in which ControlNets are looked for."""
_LARGEST_BYTES = 1 << 28
"""Far above any file of a bundle but weights, which nobody reads here."""
_DTYPES = {65568: "fp32", 65552: "fp16", 131104: "int32", 65600: "fp64"}
"""`ArrayFeatureType` in `FeatureTypes.proto` of the Core ML specification."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """An input or output as a model declares it; what is no array has no shape.

    A flexible one has the shape that it has by default, which hosts use. An optional one has a
    value where none is given.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    is_flexible: bool = False
    is_optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A compiled model; without features if its description has a `problem`.

    `file` is its path in the bundle.
    """

    file: str
    path: Path
    inputs: Mapping[str, Feature]
    outputs: Mapping[str, Feature]
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A bundle's folder; `models` are all compiled models in it, by name without the suffix.

    Those below `controlnet/` are called after their path. `family` is that of the manifest, else
    inferred. `manifest` is sdbuild's, and empty where there is none.
    """

    folder: Path
    names: frozenset[str]
    models: Mapping[str, Compiled]
    manifest: Mapping[str, Any]
    family: str

    def each(self, *wanted: str) -> Iterator[Compiled]:
        """Yields those of the models that are here and can be read."""
        for name in wanted:
            model = self.models.get(name)
            if model is not None and not model.problem:
                yield model

    def denoiser(self, name: str) -> tuple[Compiled, ...]:
        """Returns a denoiser as hosts run it, two chunks or more before the whole; none if it
        cannot be read."""
        numbered = (f"{name}Chunk{number}" for number in count(1))
        names = tuple(takewhile(self.models.__contains__, numbered))
        if len(names) < 2:
            return tuple(self.each(name))
        chunks = tuple(self.each(*names))
        return chunks if len(chunks) == len(names) else ()

    @property
    def unet(self) -> tuple[Compiled, ...]:
        """The U-Net of pictures without a ControlNet."""
        return self.denoiser("Unet")

    @property
    def nets(self) -> tuple[Compiled, ...]:
        """The ControlNets that can be read."""
        return tuple(self.each(*(n for n in self.models if n.startswith(_NETS))))


def open_bundle(folder: Path, manifest: Mapping[str, Any] | None = None) -> Opened:
    """Returns the bundle in a folder, whatever its state, with a manifest that is still to be
    written."""
    found = frozenset(path.name for path in contents(folder))
    said = _manifest(folder / MANIFEST) if manifest is None else manifest
    models = {
        path.removesuffix(SUFFIX): _open_model(folder, path) for path in _model_paths(folder, found)
    }
    return Opened(
        folder=folder, names=found, models=models, manifest=said,
        family=_family(said, models),
    )


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file.

    Raises:
        ValueError: there is none, or it is not JSON; the message is short.
    """
    return json_value(read_bytes(path), shown(path), _short(path), has_infinities=True,
                      has_controls=True)


def read_bytes(path: Path) -> bytes:
    """Returns the content of a file.

    Raises:
        ValueError: there is none, or it is no file, or far too large; the message is short.
    """
    return read_file(path, _short(path), most_bytes=_LARGEST_BYTES)


def _short(path: Path) -> Callable[..., ValueError]:
    """Makes errors that do not name the path, as their reporter names it."""
    def error(message: str, **_: str) -> ValueError:
        return ValueError(message.removeprefix(f"{shown(path)}: "))
    return error


def _manifest(path: Path) -> Mapping[str, Any]:
    try:
        found = read_json(path)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _model_paths(folder: Path, names: frozenset[str]) -> Iterator[str]:
    """Yields the paths of compiled models: those at the top, and ControlNets at any depth below
    theirs."""
    yield from sorted(name for name in names if name.endswith(SUFFIX))
    pending = ["controlnet"] if (folder / "controlnet").is_dir() else []
    for place in pending:
        for path in sorted(contents(folder / place)):
            below = f"{place}/{path.name}"
            if path.name.endswith(SUFFIX):
                yield below
            elif path.is_dir() and not path.is_symlink() and below.count("/") < _DEEPEST:
                pending.append(below)


def _family(manifest: Mapping[str, Any], models: Mapping[str, Compiled]) -> str:
    """Returns the family that the manifest names, else that of the models and their inputs."""
    named = manifest.get("family")
    return named if isinstance(named, str) and named in FAMILY_NAMES else _inferred(models)


def _inferred(models: Mapping[str, Compiled]) -> str:
    """Returns the family as hosts tell it: by the names of models and inputs, and the width of
    `time_ids`.

    A U-Net that takes five numbers as `time_ids` is a refiner's: so hosts run it, whatever else is
    in the folder.
    """
    unet = [f for n in ("Unet", "UnetChunk1", "UnetChunk2") if n in models
            for f in models[n].inputs.values()]
    inputs = {feature.name for feature in unet}
    if (any(name.startswith("MultiModalDiffusionTransformer") for name in models)
            or "TextEncoderT5" in models or "latent_image_embeddings" in inputs):
        return SD3
    if any(f.name == "time_ids" and f.shape[-1:] == (5,) for f in unet):
        return REFINER
    is_xl = inputs & {"time_ids", "text_embeds"} or "TextEncoder2" in models
    return SDXL if is_xl or any(name.startswith("UnetRefiner") for name in models) else SD


def _open_model(folder: Path, file: str) -> Compiled:
    from sdbuild.mil.files.compiled import DESCRIPTION_FILE  # with protobuf, which rules need not
    from sdbuild.mil.files.coremldata import unpack_description

    def broken(problem: str) -> Compiled:
        return Compiled(file=file, path=folder / file, inputs={}, outputs={}, problem=problem)

    try:
        data = read_bytes(folder / file / DESCRIPTION_FILE)
        _, description = unpack_description(data, DESCRIPTION_FILE)
    except ValueError as error:
        return broken(f"{DESCRIPTION_FILE}: {error}")
    except MILError as error:
        return broken(error.message)
    features = _of_default_function(description)
    return Compiled(
        file=file, path=folder / file, inputs=_features(features.input),
        outputs=_features(features.output),
    )


def _of_default_function(description: Message) -> Message:
    """Returns the model as hosts see it that has several functions, of which they choose none."""
    default = description.defaultFunctionName
    return next((f for f in description.functions if f.name == default), description)


def _features(described: Message) -> dict[str, Feature]:
    return {feature.name: _feature(feature) for feature in described}


def _feature(feature: Message) -> Feature:
    kind = feature.type.WhichOneof("Type")
    if kind != "multiArrayType":
        return Feature(name=feature.name, dtype=kind or "noType", shape=())
    array = feature.type.multiArrayType
    return Feature(
        name=feature.name, dtype=_DTYPES.get(array.dataType, f"type {array.dataType}"),
        shape=_shape(array), is_optional=feature.type.isOptional,
        is_flexible=not array.shape or array.WhichOneof("ShapeFlexibility") is not None,
    )


def _shape(array: Message) -> tuple[int, ...]:
    """Returns the shape of an array, the default one if it is flexible."""
    if array.shape or array.WhichOneof("ShapeFlexibility") != "shapeRange":
        return tuple(array.shape)
    return tuple(size.lowerBound for size in array.shapeRange.sizeRanges)
