"""The files of a checkpoint that are no networks, and the two forms that a tokenizer comes in.

Hosts read a vocabulary and merges from two files, `vocab.json` and `merges.txt`. transformers 5
saves neither: both are in `tokenizer.json`, the form of the library tokenizers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdbuild.base.errors import SourceError
from sdbuild.base.parsing import json_object, kind, shown


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A folder with a tokenizer, and the paths of the files that it may have."""

    folder: str

    @property
    def one_file(self) -> str:
        """A whole tokenizer, as transformers 5 writes it."""
        return f"{self.folder}/tokenizer.json"

    @property
    def vocabulary(self) -> str:
        """The number of each word."""
        return f"{self.folder}/vocab.json"

    @property
    def merges(self) -> str:
        """The pairs of words that are merged, by rank."""
        return f"{self.folder}/merges.txt"

    @property
    def special_tokens(self) -> str:
        """The words that are no text, the pad token among them."""
        return f"{self.folder}/special_tokens_map.json"

    @property
    def config(self) -> str:
        """Its settings, and the words that were added to the vocabulary."""
        return f"{self.folder}/tokenizer_config.json"


TOKENIZER, TOKENIZER_2 = Tokenizer("tokenizer"), Tokenizer("tokenizer_2")
TOKENIZERS = (TOKENIZER, TOKENIZER_2)
"""Of the first and the second text encoder. A checkpoint may have either or both."""

TOKENIZER_3 = Tokenizer("tokenizer_3")
"""That of T5, whose form is another: `tokenizer.json` is read as it is."""

SCHEDULER = "scheduler/scheduler_config.json"
WORDS = "words.json"
"""The words of each embedding that was written into a tokenizer, one for each vector."""

LARGEST_BYTES = 32 << 20
"""Of a file among the resources; vocabularies of other families have 17 MB."""

_MOST_WORDS = 1 << 24
_END_OF_WORD = "</w>"
_HEADER = "#version: 0.2"


def file_name(path: str) -> str:
    """Returns the name of a file in the artifact of a download and in a bundle, without folders;
    those of T5's tokenizer are called like CLIP's, and keep theirs in the artifact."""
    folder, _, name = path.rpartition("/")
    return f"{folder}.{name}" if folder == TOKENIZER_3.folder else name


class Resources(Mapping[str, bytes]):
    """The content of files by their paths in diffusers' layout, each read when it is asked for.

    A tokenizer in one file is given as the two that hosts read.
    """

    def __init__(self, where: str, names: Sequence[str], read: Callable[[str], bytes]) -> None:
        self._where = where
        self._read = read
        self._split = {name: tokenizer for tokenizer in TOKENIZERS if tokenizer.one_file in names
                       for name in (tokenizer.vocabulary, tokenizer.merges)}
        one_files = [tokenizer.one_file for tokenizer in TOKENIZERS]
        self._names = [*self._split, *(name for name in names if name not in one_files)]
        self._made: dict[str, bytes] = {}

    def __getitem__(self, name: str) -> bytes:
        if name not in self._names:
            raise KeyError(name)
        if (tokenizer := self._split.get(name)) is None:
            return self._read(name)
        if name not in self._made:
            one_file = tokenizer.one_file
            self._made |= two_files(f"{self._where}: {one_file}", self._read(one_file), tokenizer)
        return self._made[name]

    def added(self, tokenizer: Tokenizer) -> set[str]:
        """Returns the words that a tokenizer in one file adds to its vocabulary."""
        if tokenizer.vocabulary not in self._split:
            return set()
        where = f"{self._where}: {tokenizer.one_file}"
        found = vocabulary_file(where, self._read(tokenizer.one_file)).get("added_tokens")
        return {str(token.get("content")) for token in found if isinstance(token, dict)} \
            if isinstance(found, list) else set()

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def two_files(where: str, content: bytes, tokenizer: Tokenizer = TOKENIZER) -> dict[str, bytes]:
    """Returns `vocab.json` and `merges.txt`, by their paths, from a `tokenizer.json`.

    Raises:
        SourceError: it is not a tokenizer like CLIP's, which is what hosts have.
    """
    try:
        model = vocabulary_file(where, content)["model"]
        vocabulary, merges = _vocabulary(model), _merges(model)
        words = sorted(vocabulary, key=vocabulary.__getitem__)
        flat = json.dumps({word: vocabulary[word] for word in words},
                          ensure_ascii=False, separators=(",", ":"))
        lines = [_HEADER, *(" ".join(pair) for pair in merges)]
        return {tokenizer.vocabulary: flat.encode(),
                tokenizer.merges: ("\n".join(lines) + "\n").encode()}
    except (ValueError, LookupError, TypeError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else error
        raise SourceError(
            f"{where}: not a tokenizer like CLIP's: {said}",
            hint="Stable Diffusion's tokenizers are byte pairs with </w> at a word's end",
        ) from error


def vocabulary_file(where: str, content: bytes) -> dict[str, Any]:
    """Returns the JSON object in a file with a vocabulary, whose words may be any characters.

    Raises:
        SourceError: it is none.
    """
    return json_object(content, where, SourceError, most_bytes=LARGEST_BYTES, has_controls=True)


def _vocabulary(model: Mapping[str, Any]) -> dict[str, int]:
    if not isinstance(model, dict):
        raise ValueError(f"its model is {kind(model)}, expected a JSON object")
    if model["type"] != "BPE":
        raise ValueError(f"it is {shown(model['type'])}, expected BPE")
    if model.get("end_of_word_suffix") != _END_OF_WORD or model.get("continuing_subword_prefix"):
        raise ValueError(f"words end with {shown(model.get('end_of_word_suffix'))}, "
                         f"expected {_END_OF_WORD!r}, and go on with nothing before them")
    found = model["vocab"]
    if not isinstance(found, dict):
        raise ValueError(f"vocab is {kind(found)}, expected a JSON object")
    check_numbers(found)
    if len(set(found.values())) < len(found):
        raise ValueError("two words have one number")
    return found


def check_numbers(vocabulary: Mapping[str, Any]) -> None:
    """Makes sure that each word has a number.

    Raises:
        ValueError: names the first that has not.
    """
    for word, number in vocabulary.items():
        if type(number) is not int or not 0 <= number < _MOST_WORDS:
            raise ValueError(f"{shown(number)} for {shown(word)}, "
                             f"expected an integer below {_MOST_WORDS}")


def _merges(model: Mapping[str, Any]) -> list[list[str]]:
    """Returns the pairs, in order: each is a text with a space, or, since tokenizers 0.20, a
    list."""
    vocabulary, pairs = model["vocab"], []
    for number, merge in enumerate(model["merges"], 1):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        is_known = isinstance(pair, list) and len(pair) == 2 and all(
            isinstance(word, str) and word.split() == [word] for word in pair
        ) and {*pair, "".join(pair)} <= vocabulary.keys()
        if not is_known:
            raise ValueError(f"merge {number} is {shown(merge)}, expected two words "
                             "that are, as what they make is, in the vocabulary")
        pairs.append(pair)
    return pairs
