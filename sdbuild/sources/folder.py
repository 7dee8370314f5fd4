"""Checkpoints in a folder of diffusers' layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.errors import SourceError

if TYPE_CHECKING:
    from sdbuild.sources.tensors import Tensor

RESOURCES = "resources"
"""The part of a checkpoint that is no network: tokenizer, scheduler, card."""

DigestOf = Callable[[Path], str]
"""The digest of a local file; one that remembers it need not read the file again."""

_REQUIRED = ("tokenizer/vocab.json", "tokenizer/merges.txt", "scheduler/scheduler_config.json",
             "vae/config.json")
_OPTIONAL = ("tokenizer/special_tokens_map.json", "tokenizer/tokenizer_config.json",
             "README.md", "LICENSE", "LICENSE.txt", "LICENSE.md")
_STEMS = ("diffusion_pytorch_model", "model")
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")


class Folder:
    """A checkpoint in a folder.

    Raises:
        SourceError: there is no such folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            raise SourceError(
                f"{path}: there is no such folder",
                hint="source=FOLDER is a checkpoint in diffusers' layout",
            )

    def __repr__(self) -> str:
        return str(self.path)

    def identity(self, part: str, digest_of: DigestOf) -> dict[str, str]:
        """The digest of each file of the part.

        Raises:
            SourceError: one of its files is not there, or its weights are pickles.
        """
        names = self._resources() if part == RESOURCES else [
            _existing(self.path, f"{part}/config.json"), *_weights(self.path, part)
        ]
        return {name: digest_of(self.path / name) for name in names}

    def config(self, part: str) -> dict[str, Any]:
        """The content of the part's `config.json`.

        Raises:
            SourceError: there is none, or it is no JSON object.
        """
        path = self.path / _existing(self.path, f"{part}/config.json")
        try:
            found = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise SourceError(f"{path}: not the config of a network: {error}") from error
        if not isinstance(found, dict):
            raise SourceError(f"{path}: not the config of a network, expected a JSON object")
        return found

    def tensors(self, part: str) -> dict[str, Tensor]:
        """The part's tensors.

        Raises:
            SourceError: its weights are not there, are pickles, or are not whole.
        """
        from sdbuild.sources.tensors import table

        return table(self.path / name for name in _weights(self.path, part))

    def resources(self) -> dict[str, bytes]:
        """Tokenizer, scheduler, the autoencoder's config, card and licence.

        Raises:
            SourceError: one that is needed is not there.
        """
        return {name: (self.path / name).read_bytes() for name in self._resources()}

    def _resources(self) -> list[str]:
        optional = [name for name in _OPTIONAL if (self.path / name).is_file()]
        return [_existing(self.path, name) for name in _REQUIRED] + optional


def _existing(folder: Path, name: str) -> str:
    if not (folder / name).is_file():
        raise SourceError(
            f"{folder}: no {name}, expected a checkpoint in diffusers' layout",
            hint="a folder as diffusers' save_pretrained writes it, or a copy of a repository",
            file=name,
        )
    return name


def _weights(folder: Path, part: str) -> list[str]:
    """The weight files of a component: one, its fp16 variant, or shards by their index."""
    for stem in _STEMS:
        for name in (f"{stem}.safetensors", f"{stem}.fp16.safetensors"):
            if (folder / part / name).is_file():
                return [f"{part}/{name}"]
        index = folder / part / f"{stem}.safetensors.index.json"
        if index.is_file():
            return [_existing(folder, f"{part}/{name}") for name in _shards(index)]
    pickles = [p.name for p in (folder / part).iterdir() if p.suffix in _PICKLES]
    if pickles:
        raise SourceError(
            f"{folder / part}: {pickles[0]} is a pickle, which can run code when it is read; "
            "expected safetensors",
            hint="on a machine that may be lost, load it with diffusers and write it anew: "
                 "DiffusionPipeline.from_pretrained(...).save_pretrained(..., "
                 "safe_serialization=True)",
        )
    expected = " or ".join(f"{stem}.safetensors" for stem in _STEMS)
    raise SourceError(f"{folder / part}: no weights, expected {expected}")


def _shards(index: Path) -> list[str]:
    try:
        names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise SourceError(f"{index}: not an index of shards: {error!r}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise SourceError(f"{index}: {name!r} is not the name of a file beside it")
    return sorted(names)
