"""Rules of `vocab.json` and `merges.txt`, which hosts read with a reader of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sdbuild.bundle.bundle_reader import Opened, read_bytes, read_json
from sdbuild.bundle.rules.rule import ERROR, SWIFT, Finding, rule

_PAIR = re.compile(rb" *[^ \r]+ +[^ \r]+ *")
_SPECIAL = ("<|startoftext|>", "<|endoftext|>")


@rule(ERROR, SWIFT, "crashes as it loads the tokenizer.")
def vocabulary_is_flat(bundle: Opened) -> Iterator[Finding]:
    """`vocab.json` is one JSON object from words to whole numbers."""
    try:
        found = read_json(bundle.folder / "vocab.json")
    except ValueError as error:
        yield Finding("vocab.json", str(error), "a JSON object")
        return
    if not isinstance(found, dict):
        yield Finding("vocab.json", type(found).__name__, "a JSON object")
        return
    wrong = [word for word, number in found.items() if type(number) is not int]
    if wrong:
        value = str(found[wrong[0]])[:40]
        yield Finding("vocab.json", f"{value!r} for {wrong[0]!r}", "an integer")


@rule(ERROR, SWIFT, "crashes at the first prompt: it has these tokens built in.")
def vocabulary_has_the_special_tokens(bundle: Opened) -> Iterator[Finding]:
    """`vocab.json` has `<|startoftext|>` and `<|endoftext|>`."""
    try:
        found = read_json(bundle.folder / "vocab.json")
    except ValueError:
        return
    for token in _SPECIAL:
        if isinstance(found, dict) and token not in found:
            yield Finding("vocab.json", f"no {token}", "a number for it")


@rule(ERROR, SWIFT, "crashes as it loads the tokenizer.")
def merges_are_pairs(bundle: Opened) -> Iterator[Finding]:
    """Every line of `merges.txt` that is neither empty nor begins with `#` is two words."""
    lines = _merges(bundle.folder)
    if lines is None:
        yield Finding("merges.txt", "no file", "the tokenizer's rules")
    for number, line in enumerate(lines or (), 1):
        if line and not line.startswith(b"#") and not _PAIR.fullmatch(line):
            yield Finding(f"merges.txt:{number}", repr(line[:40].decode("utf-8", "replace")),
                          "two words with a space between them")
            return


@rule(ERROR, SWIFT, "drops a last line without an end, so that it splits words in another way.")
def merges_end_their_last_line(bundle: Opened) -> Iterator[Finding]:
    """The last line of `merges.txt` ends with a line feed."""
    lines = _merges(bundle.folder)
    if lines and lines[-1]:
        yield Finding("merges.txt", "no line feed at its end", "one")


def _merges(folder: Path) -> list[bytes] | None:
    try:
        return read_bytes(folder / "merges.txt").split(b"\n")
    except ValueError:
        return None


TOKENIZER = (
    vocabulary_is_flat,
    vocabulary_has_the_special_tokens,
    merges_are_pairs,
    merges_end_their_last_line,
)
