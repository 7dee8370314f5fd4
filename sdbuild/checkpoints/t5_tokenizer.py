"""T5's tokenizer, `tokenizer.json`, in the form that hosts read.

The library tokenizers reads each form of it alike. The reader of Apple's Swift package is of 2024:
it knows only the older name of the space before a prompt, and crashes at a step that cuts spaces
off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdbuild.base.errors import SourceError
from sdbuild.base.parsing import read_file
from sdbuild.checkpoints.resources import (
    LARGEST_BYTES,
    TOKENIZER_3,
    file_name,
    vocabulary_file,
)

T5_FILE = file_name(TOKENIZER_3.one_file)
"""The name of the tokenizer among the resources of a checkpoint."""

_BELOW = ("normalizers", "pretokenizers")
_HINT = "the folder tokenizer_3 that came with the checkpoint has T5's"


def host_form(where: str, content: bytes) -> bytes:
    """Returns a `tokenizer.json` that gives the same tokens, and that hosts read rightly.

    Raises:
        SourceError: it is not the tokenizer of T5.
    """
    found = vocabulary_file(where, content)
    match found.get("model"):
        case {"type": "Unigram", "vocab": [["<pad>", _], ["</s>", _], *_]}:
            pass
        case _:
            raise SourceError(f"{where}: not the tokenizer of T5, which has pieces with scores, of "
                              "which <pad> and </s> are the first", hint=_HINT)
    made = {name: _step(value) if name in ("normalizer", "pre_tokenizer") else value
            for name, value in found.items()}
    # A length that prompts are cut or padded to is the host's business.
    made |= {"truncation": None, "padding": None}
    return json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode()


def _step(step: Any) -> Any:
    """Returns a step of a tokenizer, or a sequence of some, as hosts read it."""
    match step:
        case {"type": "Sequence", **rest}:
            return {"type": "Sequence"} | {
                name: [_step(each) for each in value]
                if name in _BELOW and isinstance(value, list) else value
                for name, value in rest.items()}
        case {"type": "Metaspace"}:
            return _metaspace(step)
        case {"type": "Strip", "strip_left": bool(left), "strip_right": bool(right)}:
            ends = [end for end, is_cut in ((r"^\s+", left), (r"\s+$", right)) if is_cut]
            return {"type": "Replace", "pattern": {"Regex": "|".join(ends) or r"$^"}, "content": ""}
    return step


def _metaspace(step: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the step that puts a space before words, by both of its names."""
    if step.get("prepend_scheme", "always") != "always":
        return step
    return {**step, "prepend_scheme": "always", "add_prefix_space": True}


def t5_files(path: Path) -> dict[str, bytes]:
    """Returns the files of a checkpoint's T5 tokenizer as hosts read them, by their names in a
    bundle.

    Args:
        path: the file called `T5_FILE`.

    Raises:
        SourceError: there is none, or it is another.
    """
    if not path.is_file():
        raise SourceError(f"no {TOKENIZER_3.one_file}, which T5 needs",
                          hint="use a checkpoint that has it, or leave T5 out: components=…")
    content = read_file(path, SourceError, most_bytes=LARGEST_BYTES)
    config = {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "pad_token": "<pad>",
              "unk_token": "<unk>"}
    return {"tokenizer.json": host_form(TOKENIZER_3.one_file, content),
            "tokenizer_config.json": (json.dumps(config, indent=2) + "\n").encode()}
