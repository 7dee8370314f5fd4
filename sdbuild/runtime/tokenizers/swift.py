"""The tokenizer of Apple's Swift package: it splits at spaces alone, and knows no bytes.

`dog,` is therefore `dog` and `,</w>`, and not `dog</w>` and `,</w>`; a letter outside of ASCII is
looked up as itself, where CLIP's vocabulary has it as bytes. A prompt that is too long loses its
end token.

Source:
    What apple/ml-stable-diffusion at e12202c makes of 41 prompts, `tests/fixtures/swift`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

import regex

from sdbuild.base.byte_pairs import END_OF_WORD, encoded
from sdbuild.runtime.tokenizers import END, START, pairs

_TRIMMED = regex.compile(r"^[\p{Z}\t-\r\x85]+|[\p{Z}\t-\r\x85]+$")


class Tokenizer:
    """Byte pair encoding of whole characters; unknown ones are end tokens."""

    def __init__(self, vocabulary: Mapping[str, int], merges: str, pad_token: str) -> None:
        self._ids = {_equal(word): number for word, number in vocabulary.items()}
        self._pad = vocabulary[pad_token]
        read = merges.rpartition("\n")[0]  # a last line without an end is lost
        self._ranks = {(_equal(a), _equal(b)): rank
                       for rank, (a, b) in enumerate(pairs(read, "#"))}

    def ids(self, prompt: str, length: int) -> list[int]:
        """Returns the tokens of a prompt, padded or cut to a length: the end token is cut off
        first."""
        unknown = self._ids[END]
        found = [self._ids.get(word, unknown) for word in (START, *self._words(prompt), END)]
        return (found + [self._pad] * (length - len(found)))[:length]

    def truncated(self, prompt: str, length: int) -> str:
        """Returns the end of a prompt that does not fit into a length beside its start token."""
        return "".join(self._words(prompt)[length - 1:]).replace(END_OF_WORD, " ").strip()

    def _words(self, prompt: str) -> list[str]:
        lowered = "".join(map(str.lower, _TRIMMED.sub("", prompt)))  # letters know no neighbours
        characters = [_equal(c) for c in regex.findall(r"\X", lowered)]
        words: list[list[str]] = [[]]
        for character in characters:
            if character == " ":
                words.append([])
            else:
                words[-1].append(character)
        return [token for word in words if word for token in self._encoded(word)]

    def _encoded(self, word: Sequence[str]) -> list[str]:
        """Returns the tokens of a word."""
        return encoded([*word[:-1], word[-1] + END_OF_WORD], self._ranks)


def _equal(text: str) -> str:
    """Returns the form that is the same for texts which are equal in Swift: `é` has two
    spellings."""
    return unicodedata.normalize("NFC", text)
