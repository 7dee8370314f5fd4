"""Rules of `vocab.json`, `merges.txt` and T5's `tokenizer.json`, which hosts read themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdbuild.bundle.bundle_reader import SD3, Opened, read_bytes, read_json
from sdbuild.bundle.rules.rule import ERROR, SWIFT, TWO_ENCODERS, Finding, rule

_PAIR = re.compile(rb" *[^ \r]+ +[^ \r]+ *")
_T5 = "TextEncoderT5"
_T5_FILES = ("tokenizer.json", "tokenizer_config.json")
_STEPS = {
    "normalizer": ("normalizers", (
        "Prepend", "Replace", "Lowercase", "NFD", "NFC", "NFKD", "NFKC", "Bert", "Precompiled",
        "StripAccents")),
    "pre_tokenizer": ("pretokenizers", (
        "ByteLevel", "Punctuation", "Digits", "Split", "Whitespace", "WhitespaceSplit",
        "Metaspace")),
    "post_processor": ("processors", ("TemplateProcessing", "ByteLevel", "RobertaProcessing")),
    "decoder": ("decoders", (
        "ByteLevel", "Replace", "ByteFallback", "Fuse", "Strip", "Metaspace")),
}
"""The steps that the reader knows of each part, beside sequences of them; it crashes at others.
Source: huggingface/swift-transformers at 0.1.8, the version that the package requires."""
_SPECIAL = ("<|startoftext|>", "<|endoftext|>")


@rule(ERROR, SWIFT, "crashes as it loads the tokenizer.")
def vocabulary_is_flat(bundle: Opened) -> Iterator[Finding]:
    """`vocab.json` is one JSON object from words to whole numbers."""
    if _is_without(bundle, "vocab.json"):
        return
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


@rule(ERROR, SWIFT, "reads 0 in their place: prompts begin, end and are padded with other words.")
def vocabulary_has_the_special_tokens(bundle: Opened) -> Iterator[Finding]:
    """`vocab.json` has `<|startoftext|>` and `<|endoftext|>`."""
    yield from _has(bundle, *_SPECIAL)


@rule(ERROR, SWIFT, "pads the second encoder's prompts with the end token in its place.",
      families=TWO_ENCODERS)
def vocabulary_has_the_second_encoders_pad(bundle: Opened) -> Iterator[Finding]:
    """`vocab.json` of SDXL and SD 3 has `!`."""
    yield from _has(bundle, "!")


@rule(ERROR, SWIFT, "fails as it loads the tokenizer.")
def merges_are_pairs(bundle: Opened) -> Iterator[Finding]:
    """Every line of `merges.txt`, in UTF-8, that is neither empty nor begins with `#` is two
    words."""
    lines = _merges(bundle.folder)
    if lines is None and not _is_without(bundle, "merges.txt"):
        yield Finding("merges.txt", "no file", "the tokenizer's rules")
    for number, line in enumerate(lines or (), 1):
        is_pair = line.startswith(b"#") or _PAIR.fullmatch(line.rstrip(b"\r"))
        if line and not (is_pair and _is_text(line)):
            yield Finding(f"merges.txt:{number}", repr(line[:40].decode("utf-8", "replace")),
                          "two words with a space between them")
            return


@rule(ERROR, SWIFT, "splits prompts into single letters.")
def merges_are_there(bundle: Opened) -> Iterator[Finding]:
    """`merges.txt` has a rule."""
    lines = _merges(bundle.folder)
    if lines is not None and not any(line and not line.startswith(b"#") for line in lines):
        yield Finding("merges.txt", "no rule", "the tokenizer's rules")


@rule(ERROR, SWIFT, "takes the whole file for one line, which is a comment or fails: prompts "
      "become single letters.")
def merges_have_the_line_ends_of_unix(bundle: Opened) -> Iterator[Finding]:
    """The lines of `merges.txt` end with a line feed alone."""
    for number, line in enumerate(_merges(bundle.folder) or (), 1):
        if b"\r" in line:
            yield Finding(f"merges.txt:{number}", "a carriage return (CR LF)", "a line feed alone")
            return


@rule(ERROR, SWIFT, "drops a last line without an end, so that it splits words in another way.")
def merges_end_their_last_line(bundle: Opened) -> Iterator[Finding]:
    """The last line of `merges.txt` ends with a line feed."""
    lines = _merges(bundle.folder)
    if lines and lines[-1]:
        yield Finding("merges.txt", "no line feed at its end", "one")


@rule(ERROR, SWIFT, "ignores T5 silently.", families=(SD3,))
def t5_has_its_tokenizer(bundle: Opened) -> Iterator[Finding]:
    """A bundle with T5 has its `tokenizer.json` and `tokenizer_config.json`."""
    for name in _T5_FILES if _T5 in bundle.models else ():
        if name not in bundle.names:
            yield Finding(name, "no file", "the tokenizer of T5")


@rule(ERROR, SWIFT, "fails as it loads the tokenizer.", families=(SD3,))
def t5s_tokenizer_is_json(bundle: Opened) -> Iterator[Finding]:
    """T5's `tokenizer.json` and `tokenizer_config.json` are JSON objects."""
    for name in _T5_FILES:
        if name in bundle.names and _T5 in bundle.models:
            try:
                found = read_json(bundle.folder / name)
            except ValueError as error:
                yield Finding(name, str(error), "a JSON object")
                continue
            if not isinstance(found, dict):
                yield Finding(name, type(found).__name__, "a JSON object")


@rule(ERROR, SWIFT, "crashes as it loads a step that it does not know.", families=(SD3,))
def t5s_tokenizer_has_known_steps(bundle: Opened) -> Iterator[Finding]:
    """The steps in T5's `tokenizer.json` are of types that the package's reader knows."""
    for part, (below, known) in _STEPS.items():
        for step in _steps(_tokenizer(bundle).get(part), below):
            if step.get("type") not in known:
                yield Finding(f"tokenizer.json {part}", repr(step.get("type"))[:80],
                              ", ".join(known))


@rule(ERROR, SWIFT, "does not read `prepend_scheme`: the first word of a prompt becomes another.",
      families=(SD3,))
def t5s_tokenizer_adds_a_space(bundle: Opened) -> Iterator[Finding]:
    """`Metaspace` in T5's `tokenizer.json` has `add_prefix_space`."""
    for step in _steps(_tokenizer(bundle).get("pre_tokenizer"), "pretokenizers"):
        if step.get("type") == "Metaspace" and step.get("add_prefix_space") is not True:
            yield Finding("tokenizer.json", "Metaspace without add_prefix_space", "it, true")


@rule(ERROR, SWIFT, "reads pieces and their scores from it, and fails without; the end token's "
      "number is also the value of its mask.", families=(SD3,))
def t5s_tokenizer_is_unigram(bundle: Opened) -> Iterator[Finding]:
    """T5's `tokenizer.json` lists pieces with scores, `</s>` as number 1, and has an `unk_id`."""
    tokenizer = _tokenizer(bundle)
    model = tokenizer.get("model")
    if not tokenizer:
        return
    match model:
        case {"vocab": [_, ["</s>", int() | float()], *_], "unk_id": int()}:
            return
    yield Finding("tokenizer.json model", "another form", "vocab with </s> second, and unk_id")


def _is_without(bundle: Opened, name: str) -> bool:
    """Whether a bundle has no such file and needs none, as the system encodes its prompts."""
    is_multilingual = ("MultilingualTextEncoderProjection" in bundle.models
                       and "TextEncoder" not in bundle.models)
    return is_multilingual and name not in bundle.names


def _has(bundle: Opened, *tokens: str) -> Iterator[Finding]:
    """Yields a finding for each token that the vocabulary lacks, if it is one."""
    try:
        found = read_json(bundle.folder / "vocab.json")
    except ValueError:
        return
    for token in tokens:
        if isinstance(found, dict) and token not in found:
            yield Finding("vocab.json", f"no {token}", "a number for it")


def _merges(folder: Path) -> list[bytes] | None:
    try:
        return read_bytes(folder / "merges.txt").split(b"\n")
    except ValueError:
        return None


def _is_text(line: bytes) -> bool:
    try:
        return bool(line.decode())
    except UnicodeDecodeError:
        return False


def _tokenizer(bundle: Opened) -> dict[str, Any]:
    """T5's tokenizer, empty if the bundle has no T5."""
    return _object(bundle, "tokenizer.json") if _T5 in bundle.models else {}


def _object(bundle: Opened, name: str) -> dict[str, Any]:
    """Returns a JSON object of a file, empty if it holds none."""
    try:
        found = read_json(bundle.folder / name)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _steps(found: object, below: str) -> Iterator[dict[str, Any]]:
    """Yields the single steps of a normalizer or pre-tokenizer, which may be a sequence of them."""
    pending = [found]
    while pending:
        match pending.pop():
            case {"type": "Sequence", **rest}:
                inner = rest.get(below)
                pending += inner if isinstance(inner, list) else []
            case dict() as step:
                yield step


TOKENIZER = (
    vocabulary_is_flat,
    vocabulary_has_the_special_tokens,
    vocabulary_has_the_second_encoders_pad,
    merges_are_pairs,
    merges_are_there,
    merges_have_the_line_ends_of_unix,
    merges_end_their_last_line,
    t5_has_its_tokenizer,
    t5s_tokenizer_is_json,
    t5s_tokenizer_has_known_steps,
    t5s_tokenizer_adds_a_space,
    t5s_tokenizer_is_unigram,
)
