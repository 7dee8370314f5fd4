"""Tokenizers of CLIP: a file each, over the same two files of a bundle.

Prompts are split into tokens by the checkpoint's own method or by that of a host, found by name.
"""

from __future__ import annotations

import importlib
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


def load(name: str, folder: Path, pad_token: str) -> Tokenizer:
    """Returns the tokenizer called `name`, on the `vocab.json` and `merges.txt` of a folder.

    Raises:
        BundleError: they are none.
    """
    module: Any = importlib.import_module(f"sdbuild.runtime.tokenizers.{name}")
    vocabulary, path = _vocabulary(folder / "vocab.json"), folder / "merges.txt"
    for token in (START, END, pad_token):
        if token not in vocabulary:
            raise BundleError(f"{folder / 'vocab.json'}: no {token}",
                              hint=f"sdbuild contract {folder} says what hosts need")
    merges = decoded_text(read_file(path, BundleError), str(path), BundleError)
    try:
        tokenizer: Tokenizer = module.Tokenizer(vocabulary, merges, pad_token)
    except ValueError as error:
        raise BundleError(f"{path}: {error}",
                          hint=f"sdbuild contract {folder} says what hosts need") from error
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
