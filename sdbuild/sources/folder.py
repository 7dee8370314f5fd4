"""Checkpoints in a folder of diffusers' layout: which files each part of a pipeline has."""

from __future__ import annotations

import json
from pathlib import Path

from sdbuild.errors import SourceError

RESOURCES = "resources"
"""The part of a checkpoint that is no network: tokenizer, scheduler, card."""

_REQUIRED = ("tokenizer/vocab.json", "tokenizer/merges.txt", "scheduler/scheduler_config.json",
             "vae/config.json")
_OPTIONAL = ("tokenizer/special_tokens_map.json", "tokenizer/tokenizer_config.json",
             "README.md", "LICENSE", "LICENSE.txt", "LICENSE.md")
_STEMS = ("diffusion_pytorch_model", "model")
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")


def files(folder: Path, part: str) -> list[str]:
    """The files of a part of the checkpoint, relative to `folder`.

    `part` is `RESOURCES` or the folder of a component; then the first file is its config.

    Raises:
        SourceError: the folder or one of its files is not there, or its weights are pickles.
    """
    if not folder.is_dir():
        raise SourceError(
            f"{folder}: there is no such folder",
            hint="source=FOLDER is a checkpoint in diffusers' layout",
        )
    if part == RESOURCES:
        optional = [name for name in _OPTIONAL if (folder / name).is_file()]
        return [_existing(folder, name) for name in _REQUIRED] + optional
    return [_existing(folder, f"{part}/config.json"), *_weights(folder, part)]


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
