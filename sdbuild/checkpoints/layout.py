"""diffusers' layout: which files of a checkpoint make a part, inferred from their names."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import PurePosixPath

from sdbuild.base.errors import SourceError
from sdbuild.base.parsing import Fields, json_object, shown
from sdbuild.checkpoints.resources import SCHEDULER, TOKENIZER_3, TOKENIZERS, Tokenizer
from sdbuild.safetensors.pickles import PICKLES

RESOURCES = "resources"
"""The part of a checkpoint that is no network: tokenizer, scheduler, card."""

FOLDERS = ("scheduler", *(tokenizer.folder for tokenizer in TOKENIZERS))
"""Those of its folders that are parts, too: what stands there defines some networks."""

CARDS = ("README.md", "LICENSE", "LICENSE.txt", "LICENSE.md")
_SHARD = ".safetensors"
_STEMS = ("diffusion_pytorch_model", "model")
_FORMS = (
    ("{stem}.fp16.safetensors", "{stem}.safetensors.index.fp16.json"),
    ("{stem}.fp16.safetensors", "{stem}.safetensors.fp16.index.json"),  # of an older diffusers
    ("{stem}.safetensors", "{stem}.safetensors.index.json"),
)
"""The names of weights, whole and in shards: what will be fp16 in the end need not come as fp32.
Source: diffusers and transformers, `_add_variant`; diffusers, `_fetch_index_file_legacy`."""

COMMAS = ("commas separate several; write a name that has one in a recipe's list: "
          'lora = ["a,b.safetensors:0.8"], source = ["a,b"]')
"""The hint for a missing place whose name may have been split at a comma."""

A_CHECKPOINT = "a folder as diffusers' save_pretrained writes it, or a copy of a repository"
FROM_ELSEWHERE = "vae=LOCATION uses another autoencoder"
LEAVE_OUT = (
    "what a checkpoint does not have can be left out: components=text_encoder,unet,vae_decoder"
)
"""The hint for a part that is missing; many fine-tunes come without a safety checker."""

ShardsOf = Callable[[str], list[str]]
"""The files that an index names."""


def has(part: str, names: Collection[str]) -> bool:
    """Whether a checkpoint with these files has a folder for the component, or the resources."""
    if part == RESOURCES:
        return SCHEDULER in names and any(_has_folder(t.folder, names) for t in TOKENIZERS)
    return f"{part}/config.json" in names


def part_files(
    where: str, part: str, names: Collection[str], shards_of: ShardsOf
) -> list[str]:
    """Returns the files of a part: of a component its config first and then its weights.

    `scheduler` and the tokenizers are parts as well, of what is among the resources.

    Args:
        where: the checkpoint, for messages.
        names: the files that it has, by their paths with `/`.

    Raises:
        SourceError: one that is needed is not there, or the weights are pickles.
    """
    if part == RESOURCES:
        return config_files(where, part, names) + [name for name in CARDS if name in names]
    if part in FOLDERS:
        return config_files(where, part, names)
    return [*config_files(where, part, names), *weight_files(where, part, names, shards_of)]


def config_files(where: str, part: str, names: Collection[str]) -> list[str]:
    """Returns the files of a part that say what it is: of a component its config alone.

    A component that is kept alone has its files where others have a folder for it.

    Raises:
        SourceError: one that is needed is not there.
    """
    if part == RESOURCES:
        kept = [t for t in TOKENIZERS if _has_folder(t.folder, names)] or TOKENIZERS[:1]
        of_t5 = (TOKENIZER_3.one_file, TOKENIZER_3.config)
        return [name for tokenizer in kept for name in _tokenizer_files(where, tokenizer, names)] \
            + [name for name in of_t5 if name in names] + [_existing(where, SCHEDULER, names)]
    if part == "scheduler":
        return [_existing(where, SCHEDULER, names)]
    if part in FOLDERS:
        return _tokenizer_files(where, Tokenizer(part), names)
    folders = {name.partition("/")[0] for name in names if "/" in name}
    if folders and part not in folders and "config.json" not in names:
        raise SourceError(
            f"{where}: no {part}, only {', '.join(sorted(folders))}",
            hint=_lacking(part),
            part=part,
        )
    return [_existing(where, _inside(part, "config.json", names), names)]


def _lacking(part: str) -> str:
    """Returns a hint for a checkpoint that has no folder for a part."""
    if part == "vae":
        return FROM_ELSEWHERE
    return A_CHECKPOINT if part in (
        "unet", "transformer", "text_encoder", "text_encoder_2") else LEAVE_OUT


def _has_folder(folder: str, names: Collection[str]) -> bool:
    return any(name.startswith(f"{folder}/") for name in names)


def _tokenizer_files(where: str, tokenizer: Tokenizer, names: Collection[str]) -> list[str]:
    """Returns its two files or, as transformers 5 writes it, its only one; and what describes
    it."""
    needed = [tokenizer.vocabulary, tokenizer.merges]
    if tokenizer.one_file in names and not all(name in names for name in needed):
        needed = [tokenizer.one_file]
    described = (tokenizer.special_tokens, tokenizer.config)
    return [*(_existing(where, name, names) for name in needed),
            *(name for name in described if name in names)]


def _inside(part: str, name: str, names: Collection[str]) -> str:
    is_alone = f"{part}/config.json" not in names and "config.json" in names
    return name if is_alone else f"{part}/{name}"


def weight_files(
    where: str, part: str, names: Collection[str], shards_of: ShardsOf
) -> list[str]:
    """Returns the weights of a component: one file, or the shards that its index names.

    Raises:
        SourceError: there are none, a shard is missing, or they are pickles.
    """
    for stem in _STEMS:
        for whole, index in _FORMS:
            if (name := _inside(part, whole.format(stem=stem), names)) in names:
                return [name]
            if (name := _inside(part, index.format(stem=stem), names)) in names:
                return [_existing(where, shard, names) for shard in shards_of(name)]
    folder = PurePosixPath(_inside(part, "", names))
    for name in sorted(names):
        path = PurePosixPath(name)
        if path.parent == folder and path.suffix in PICKLES:
            raise _pickled(where, name)
    expected = " or ".join(f"{stem}.safetensors" for stem in _STEMS)
    raise SourceError(f"{where}: {part} has no weights, expected {expected}")


def _existing(where: str, name: str, names: Collection[str]) -> str:
    """Returns the name, if the checkpoint has such a file.

    Raises:
        SourceError: it has not.
    """
    if name not in names:
        raise SourceError(
            f"{where}: no {name}, expected a checkpoint in diffusers' layout",
            hint=_other_form(names) or A_CHECKPOINT, file=name,
        )
    return name


def _other_form(names: Collection[str]) -> str:
    """Returns a hint for files that are no checkpoint in diffusers' layout; empty if they do not
    show what they are."""
    if "config.json" in names:
        return ("it is a folder of one network; if that is an autoencoder: vae=FOLDER, if a "
                "ControlNet: controlnet=FOLDER")
    files = sorted(name for name in names if "/" not in name and name.endswith(_SHARD))
    if not files or any(name.endswith("/config.json") for name in names):
        return ""
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"it has checkpoints in one file, {shown(files[0])}{more}: source=FILE, once fetched"


def shard_names(where: str, index: str, content: bytes) -> list[str]:
    """Returns the files that an index names, by their paths in the checkpoint.

    Raises:
        SourceError: it is no index, or leads to files that are not beside it.
    """
    inside = f"{where}: {index}"
    found = Fields(json_object(content, inside, SourceError), inside, SourceError)
    names = found.fields("weight_map").values.values()
    for name in names:
        if not isinstance(name, str) or not _is_shard(name):
            raise SourceError(f"{inside}: {shown(name)} is not the name of a {_SHARD} file "
                              "beside it")
    return [str(PurePosixPath(index).with_name(name)) for name in sorted({*names})]


def _is_shard(name: str) -> bool:
    return PurePosixPath(name).name == name and name.endswith(_SHARD) and name != _SHARD


def config(where: str, content: bytes) -> dict[str, object]:
    """Returns the content of a `config.json`.

    Raises:
        SourceError: it is no JSON object.
    """
    return json_object(content, where, SourceError)


def _pickled(where: str, name: str) -> SourceError:
    return SourceError(
        f"{where}: {name} is a pickle, which can run code when it is read; expected safetensors",
        hint="on a machine that may be lost, load it with diffusers and save it again: "
             "DiffusionPipeline.from_pretrained(...).save_pretrained(..., "
             "safe_serialization=True)",
        file=name,
    )
