"""Files of embeddings: vectors that stand for a word, one or several for each text encoder.

    emb_params                             A1111, and trainers that write as it does
    string_to_param.*                      the same, of a pickle whose dictionaries became names
    clip_l, clip_g                         the same for the two encoders of XL
    text_encoders_0, text_encoders_1       diffusers' trainer for XL
    <cat-toy>, and others                  diffusers: each tensor is called like its word
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sdbuild.base.errors import SourceError
from sdbuild.base.units import counted
from sdbuild.checkpoints import others
from sdbuild.safetensors.decode import expect_floats
from sdbuild.safetensors.tensors import Tensor, table

FIRST, SECOND = "text_encoder", "text_encoder_2"
"""The folders of the text encoders that an embedding has vectors for."""

_ENCODERS = {"emb_params": FIRST, "string_to_param.*": FIRST, "clip_l": FIRST, "clip_g": SECOND,
             "text_encoders_0": FIRST, "text_encoders_1": SECOND}
_NEEDED = {"sd": {FIRST}, "sdxl": {FIRST, SECOND}, "sdxl-refiner": {FIRST, SECOND}}
_GENERATIONS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2",
                1280: "the second text encoder of Stable Diffusion XL"}
_HINT = "an embedding is for the text encoders that it was trained with"
_TWO_FILES = ("diffusers' trainer for XL writes a file for each text encoder: write the tensors of "
              "both, 768 and 1280 wide, into one, as clip_l and clip_g")
_MOST = 128
"""Of words in a file, and of vectors for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """The vectors of one word, (vectors, width) or (width), by the folder of the text encoder.

    `word` is as the file has it, and empty where it does not say.
    """

    word: str
    vectors: Mapping[str, Tensor]

    @property
    def count(self) -> int:
        """The number of vectors for each encoder."""
        return min(map(_count, self.vectors.values()))


def read(path: Path) -> list[Embedding]:
    """Reads the embeddings of a file; of their tensors the headers alone.

    Raises:
        SourceError: it is something else, or not whole.
    """
    tensors = table([path])
    odd = [t for t in tensors.values()
           if not 1 <= len(t.shape) <= 2 or not 1 <= _count(t) <= _MOST or not t.shape[-1]]
    if odd or not 1 <= len(tensors) <= _MOST:
        others.refuse(path, tensors, "embedding")
        said = f"{odd[0].name} has the shape {list(odd[0].shape)}" if odd else \
            f"{counted(len(tensors), 'tensor')}"
        raise SourceError(f"{path}: {said}, expected an embedding: one to {_MOST} vectors for a "
                          "word", hint=_HINT)
    expect_floats(tensors.values())
    if not tensors.keys() & _ENCODERS.keys():
        others.refuse(path, tensors, "embedding")
        return [Embedding(word=name, vectors={FIRST: t}) for name, t in tensors.items()]
    vectors = {_ENCODERS[name]: t for name, t in tensors.items() if name in _ENCODERS}
    said = ", ".join(f"{name} {list(t.shape)}" for name, t in tensors.items())
    if len(vectors) < len(tensors):
        others.refuse(path, tensors, "embedding")
        raise SourceError(f"{path}: expected one tensor for each text encoder, found {said}",
                          hint=_HINT)
    if len(set(map(_count, vectors.values()))) > 1:
        raise SourceError(f"{path}: expected as many vectors for each text encoder, found {said}",
                          hint="it was not saved whole: download it again")
    return [Embedding(word="", vectors=vectors)]


def expect_family(path: Path, family: str) -> None:
    """Makes sure that a file has vectors for the text encoders of a family.

    Raises:
        SourceError: it has not.
    """
    for found in read(path):
        if found.vectors.keys() != _NEEDED[family]:
            made = "two text encoders, as XL has" if SECOND in found.vectors else "one text encoder"
            is_two = len(_NEEDED[family]) > 1
            wanted = "clip_l and clip_g" if is_two else "one, as emb_params"
            raise SourceError(f"{path}: the embedding is for {made}, found "
                              f"{', '.join(t.name for t in found.vectors.values())}, expected "
                              f"{wanted}", hint=_TWO_FILES if is_two else _HINT)


def expect_widths(path: Path, encoder: str, width: int) -> None:
    """Makes sure that all vectors in a file for a text encoder are as wide as its table.

    Raises:
        SourceError: some are not.
    """
    for found in read(path):
        if encoder in found.vectors:
            expect_width(found.vectors[encoder], width)


def expect_width(vectors: Tensor, width: int) -> None:
    """Makes sure that vectors are as wide as the rows of a table of embeddings.

    Raises:
        SourceError: they are not; says what they seem to be made for.
    """
    found = vectors.shape[-1]
    if found != width:
        made = f": it seems to be made for {_GENERATIONS[found]}" if found in _GENERATIONS else ""
        raise SourceError(f"{vectors.file}: {vectors.name} is {found} wide, expected {width}, as "
                          f"the text encoder has{made}", hint=_HINT)


def _count(tensor: Tensor) -> int:
    return tensor.shape[0] if len(tensor.shape) > 1 else 1
