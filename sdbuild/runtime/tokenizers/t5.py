"""T5's tokenizer: pieces of words with their scores, in one file of the library tokenizers."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer as Backend

from sdbuild.base.errors import BundleError
from sdbuild.base.parsing import read_file

_LARGEST_BYTES = 32 << 20
_PAD, _END = "<pad>", "</s>"


class Tokenizer:
    """Splits prompts into pieces; what is left is padded."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._backend.no_padding()
        self._backend.no_truncation()
        self._pad, self._end = (self._number(token) for token in (_PAD, _END))

    def _number(self, token: str) -> int:
        found = self._backend.token_to_id(token)
        if found is None:
            raise ValueError(f"no {token}, expected the tokenizer of T5")
        return int(found)

    def ids(self, prompt: str, length: int) -> list[int]:
        """Returns the tokens of a prompt and an end token, padded or cut to a length."""
        found = [*self._words(prompt)[:length - 1], self._end]
        return found + [self._pad] * (length - len(found))

    def truncated(self, prompt: str, length: int) -> str:
        """Returns the end of a prompt that does not fit into a length beside its end token."""
        return self._backend.decode(self._words(prompt)[length - 1:]).strip()

    def _words(self, prompt: str) -> list[int]:
        return list(self._backend.encode(prompt, add_special_tokens=False).ids)


def load(path: Path) -> Tokenizer:
    """Returns the tokenizer in a file.

    Raises:
        BundleError: it is none, or not T5's.
    """
    content = read_file(path, BundleError, most_bytes=_LARGEST_BYTES)
    try:
        return Tokenizer(Backend.from_buffer(content))
    except Exception as error:  # the library raises Exception itself
        raise BundleError(f"{path}: not a tokenizer: {' '.join(str(error).split())}",
                          hint="T5 has one of pieces with scores") from error
