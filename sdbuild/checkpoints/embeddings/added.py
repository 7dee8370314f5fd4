"""Files of embeddings, each under its word, added to a vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints.embeddings import embedding
from sdbuild.checkpoints.embeddings.embedding import Embedding
from sdbuild.checkpoints.embeddings.words import Spoken, Words, letters
from sdbuild.checkpoints.resources import vocabulary_file
from sdbuild.checkpoints.sidecar_configs import host_tokenizer


def words_in(resources: Mapping[str, bytes]) -> Words:
    """Returns the words of the tokenizer that hosts read, among the files besides networks.

    Raises:
        SourceError: there is none, or it is not sound.
    """
    tokenizer = host_tokenizer(resources)
    names = tokenizer.vocabulary, tokenizer.merges
    if missing := [name for name in names if name not in resources]:
        raise SourceError(f"{', '.join(missing)}: missing")
    vocabulary, merges = (resources[name] for name in names)
    return Words(vocabulary_file(names[0], vocabulary), merges.decode("utf-8", "replace"))


def added(
    places: Sequence[str], asked: Sequence[Mapping[str, str]], words: Words
) -> Iterator[tuple[Embedding, list[Spoken]]]:
    """Yields the embeddings of all files, and what was added to the vocabulary for each.

    Args:
        asked: the `word` of each file, or the name of the `file` where none is given.
    Raises:
        SourceError: a file is none, or a word cannot be added; names the file.
    """
    for place, named in zip(places, asked, strict=True):
        found = embedding.read(Path(place))
        if "word" in named and len(found) > 1:
            raise SourceError(f"{place}: {len(found)} embeddings, and one word for them, "
                              f"{named['word']}", hint="leave the word out: each has its own")
        for each in found:
            word = named["word"] if "word" in named else (
                letters(each.word) or letters(named["file"]))
            try:
                yield each, words.add(word, each.count)
            except SourceError as error:
                raise SourceError(f"{place}: {error.message}", hint=error.hint) from error
