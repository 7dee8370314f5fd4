"""Tokenizers of CLIP: a file each, over the same two files of a bundle.

Prompts are split into tokens by the checkpoint's own method or by that of a host, found by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sdbuild.base.errors import BundleError
from sdbuild.base.parsing import decoded_text, json_file, read_file, shown

START, END = "<|startoftext|>", "<|endoftext|>"
_MOST_TOKENS = 1 << 20


class Tokenizer(Protocol):
    """Splits prompts into the numbers that a text encoder takes."""

    def ids(self, prompt: str, length: int) -> list[int]:
        """Returns the tokens of a prompt, padded or cut to a length."""
        ...

    def truncated(self, prompt: str, length: int) -> str:
        """Returns the part of a prompt that does not fit into a length; empty if all of it does."""
        ...


@dataclass(frozen=True, slots=True)
class Words:
    """The files of a folder that its tokenizers are made of: numbers of words, and `merges.txt`."""

    folder: Path
    vocabulary: Mapping[str, int]
    merges: str


def read(folder: Path) -> Words:
    """Returns the `vocab.json` and `merges.txt` of a folder.

    Raises:
        BundleError: they are none.
    """
    path = folder / "merges.txt"
    return Words(folder, _vocabulary(folder / "vocab.json"),
                 decoded_text(read_file(path, BundleError), str(path), BundleError))


def load(name: str, words: Words, pad_token: str) -> Tokenizer:
    """Returns the tokenizer called `name`.

    Raises:
        BundleError: it cannot be made of such files.
    """
    module: Any = importlib.import_module(f"sdbuild.runtime.tokenizers.{name}")
    hint = f"sdbuild contract {words.folder} says what hosts need"
    for token in (START, END, pad_token):
        if token not in words.vocabulary:
            raise BundleError(f"{words.folder / 'vocab.json'}: no {token}", hint=hint)
    try:
        tokenizer: Tokenizer = module.Tokenizer(words.vocabulary, words.merges, pad_token)
    except ValueError as error:
        raise BundleError(f"{words.folder / 'merges.txt'}: {error}", hint=hint) from error
    return tokenizer


def pairs(merges: str, comment: str) -> list[tuple[str, str]]:
    """Returns the tokens that each line of `merges.txt` joins, without lines that begin with a
    `comment`.

    Raises:
        ValueError: a line is not of two words.
    """
    found = []
    for number, line in enumerate(merges.split("\n"), 1):
        words = line.split(" ")
        if "" in words:
            words = [word for word in words if word]
        if not words or line.startswith(comment):
            continue
        if len(words) != 2:
            raise ValueError(f"line {number} has {len(words)} words, expected two")
        found.append((words[0], words[1]))
    return found


def _vocabulary(path: Path) -> dict[str, int]:
    found = json_file(path, BundleError, has_controls=True)
    for word, number in found.items():
        if not (type(number) is int and 0 <= number < _MOST_TOKENS):
            raise BundleError(f"{path}: {shown(word)} is {shown(number)}, expected a number",
                              hint=f"sdbuild contract {path.parent} says what hosts need")
    return found
