"""Learned words in the two files of CLIP's tokenizer, without a new row in any table.

The vocabulary has tokens that no prompt reaches: capital letters, since every host writes prompts
in lower case before it splits them, and two bytes that UTF-8 never has, whose characters are
capital letters as well. Their numbers are given to learned words, so that the table of embeddings
keeps its shape, and with it the architecture.

A word must be of two tokens so far. Then one rule, behind all others, joins them, and it joins them
nowhere but in this word: a prompt without it keeps its tokens. A word of three would need a rule
for two of them, which would join them in other words, too. A second rule joins the word where more
follows, for hosts that split prompts at spaces alone: `cattoy,` is one word there.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sdbuild.base.byte_pairs import END_OF_WORD, Pair, encoded
from sdbuild.base.errors import SourceError

_UNREACHED = (*string.ascii_uppercase, "À", "Á")
"""The characters that stand for the bytes 41 to 5A, C0 and C1."""
_LETTERS = string.ascii_lowercase
_SUGGESTED = 3
_FORMS = ("{}", "my{}", "{}x", "{}style", "{}toy")
"""Of words that are suggested."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """A word that stands for one vector, and the rows of the tables that hold it."""

    word: str
    rows: tuple[int, ...]


class Words:
    """A vocabulary and its merges, to which words are added.

    Args:
        vocabulary: the number of each token.
        merges: the text of `merges.txt`, whose rules are two tokens a line.
    """

    def __init__(self, vocabulary: Mapping[str, int], merges: str) -> None:
        self._numbers = dict(vocabulary)
        self._lines = merges.removesuffix("\n").split("\n")
        rules = [line.split(" ") for line in self._lines if line and not line.startswith("#")]
        self._ranks: dict[Pair, int] = {(a, b): rank for rank, (a, b) in enumerate(rules)}
        used = {token for pair in self._ranks for token in pair}
        self._free = [
            token for letter in _UNREACHED for token in (letter, letter + END_OF_WORD)
            if token in self._numbers and token not in used]
        self._given: set[str] = set()

    @property
    def vocabulary(self) -> bytes:
        """The content of `vocab.json`."""
        return json.dumps(self._numbers, ensure_ascii=False, separators=(",", ":")).encode()

    @property
    def merges(self) -> bytes:
        """The content of `merges.txt`."""
        return ("\n".join(self._lines) + "\n").encode()

    def add(self, word: str, vectors: int) -> list[Spoken]:
        """Adds a word; for each vector after the first, one like it with another letter at its end.

        Raises:
            SourceError: the word does not fit, or no tokens are left.
        """
        if not (word.isascii() and word.isalpha() and word.islower()):
            raise SourceError(f"the word {word!r}: expected letters from a to z alone, since some "
                              "apps split prompts at everything else",
                              hint="embedding=FILE:WORD names another, such as mystyle")
        if word in self._given:
            raise self._unfit(word, "another embedding has it")
        first, *_ = self._tokens(word)
        found = [self._added(word)]
        for other in (start + letter for start in (word, first) for letter in _LETTERS):
            if len(found) < vectors and len(self._tokens(other)) == 2:
                found.append(self._added(other))
        if len(found) < vectors:
            raise self._unfit(word, f"{vectors} vectors, and each needs a word of its own: there "
                                    f"are {len(found)} like it")
        return found

    def _added(self, word: str) -> Spoken:
        whole, inner = self._tokens(word), encoded(word, self._ranks)
        if len(whole) != 2:
            raise self._unfit(word, "it is in the vocabulary already" if len(whole) == 1 else
                              f"it is {len(whole)} tokens so far, expected 2, so that one rule "
                              "joins them")
        pairs = [(first, second) for first, *rest in (whole, inner) if len(rest) == 1
                 for second in rest]
        if len(self._free) < len(pairs):
            raise SourceError(f"the word {word}: no tokens are left for it among those that no "
                              "prompt reaches",
                              hint="CLIP's vocabulary has 56 of them, and most words take two")
        self._given.add(word)
        return Spoken(word, tuple(self._join(pair) for pair in pairs))

    def _join(self, pair: Pair) -> int:
        """Adds the rule that joins two tokens, and returns the number of what they become."""
        number = self._numbers.pop(self._free.pop(0))
        self._numbers["".join(pair)] = number
        self._ranks[pair] = len(self._ranks)
        self._lines.append(" ".join(pair))
        return number

    def _tokens(self, word: str) -> list[str]:
        """Returns the tokens of a word that a space follows."""
        return encoded([*word[:-1], word[-1] + END_OF_WORD], self._ranks)

    def _unfit(self, word: str, problem: str) -> SourceError:
        others = [other for other, _ in zip(self._others(word), range(_SUGGESTED), strict=False)]
        said = f", such as {', '.join(others)}" if others else ""
        return SourceError(f"the word {word}: {problem}",
                           hint=f"embedding=FILE:WORD names another{said}")

    def _others(self, word: str) -> Iterator[str]:
        """Yields words like it that can be added."""
        for end in range(len(word), 0, -1):
            for other in (form.format(word[:end]) for form in _FORMS):
                if len(self._tokens(other)) == len(encoded(other, self._ranks)) == 2 \
                        and other != word:
                    yield other


def letters(name: str) -> str:
    """Returns the letters of a name in lower case, as a word; empty if it has none."""
    return "".join(c for c in name.lower() if c in _LETTERS)
