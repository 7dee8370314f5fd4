"""CLIP's own tokenizer, which diffusers and Apple's Python pipeline use.

It is transformers' `CLIPTokenizer`, made from the library beneath that: transformers takes seconds
to import, and this a twentieth of one.
"""

from __future__ import annotations

from collections.abc import Mapping

from tokenizers import Regex
from tokenizers import Tokenizer as Backend
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.normalizers import NFC, Lowercase, Replace
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as PreTokenizers

from sdbuild.runtime.tokenizers import END, START, pairs

_END_OF_WORD = "</w>"
_WORDS = (r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]"
          r"|[^\s\p{L}\p{N}]+")
"""Source: `clip/simple_tokenizer.py` of openai/CLIP (MIT)."""


class Tokenizer:
    """Byte-level byte pair encoding, in lower case; `pad_token` fills what is left."""

    def __init__(self, vocabulary: Mapping[str, int], merges: str, pad_token: str) -> None:
        self._vocabulary = vocabulary
        self._pad = vocabulary[pad_token]
        joined = pairs(merges.replace("\r\n", "\n"), "#version")
        known = [(one, other) for one, other in joined  # as the backend demands
                 if one in vocabulary and other in vocabulary and one + other in vocabulary]
        self._backend = Backend(BPE(vocab=dict(vocabulary), merges=known, unk_token=END,
                                    end_of_word_suffix=_END_OF_WORD, continuing_subword_prefix=""))
        self._backend.normalizer = Normalizers([NFC(), Replace(Regex(r"\s+"), " "), Lowercase()])
        self._backend.pre_tokenizer = PreTokenizers([
            Split(Regex(_WORDS), behavior="removed", invert=True),
            ByteLevel(add_prefix_space=False),
        ])
        self._backend.decoder = ByteLevelDecoder()
        self._backend.add_special_tokens([START, END, pad_token])

    def ids(self, prompt: str, length: int) -> list[int]:
        """Returns the tokens of a prompt between a start and an end token, padded or cut to a
        length."""
        words = self._words(prompt)[:length - 2]
        found = [self._vocabulary[START], *words, self._vocabulary[END]]
        return found + [self._pad] * (length - len(found))

    def truncated(self, prompt: str, length: int) -> str:
        """Returns the end of a prompt that does not fit into a length beside its start and end
        token."""
        text = self._backend.decode(self._words(prompt)[length - 2:])
        return text.replace(_END_OF_WORD, " ").strip()

    def _words(self, prompt: str) -> list[int]:
        return list(self._backend.encode(prompt, add_special_tokens=False).ids)
