"""Prompts to what a U-Net is given of them: a function for each family of models.

Hosts differ in the tokens, in the negative prompt that nobody gave, and in the sizes that Stable
Diffusion XL has as an input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np

from sdbuild.bundle.hosts import HOSTS, Host
from sdbuild.bundle.manifest import Bundle
from sdbuild.bundle.request import Request
from sdbuild.runtime import tokenizers
from sdbuild.runtime.networks import Networks

Condition = Mapping[str, np.ndarray]
"""A network's inputs besides sample and timestep, by name: of the negative prompt, then of the
prompt, on the leading axis."""

_SCORES = (2.5, 6.0)
"""The refiner's aesthetic scores of the negative prompt and of the prompt."""


class Prompts:
    """Encodes prompts with a bundle's text encoders; tokenizers are kept."""

    def __init__(self, bundle: Bundle, networks: Networks) -> None:
        self._bundle, self._networks = bundle, networks
        self._tokenizers: dict[tuple[str, str], tokenizers.Tokenizer] = {}

    def tokenizer(self, request: Request, encoder: str) -> tokenizers.Tokenizer:
        """Returns the tokenizer of a text encoder, as the request or its host has it."""
        if encoder == "text_encoder_3":
            return self._t5
        name = request.tokenizer or HOSTS[request.host].tokenizer
        pad = self._bundle.pad_token_2 if encoder == "text_encoder_2" else self._bundle.pad_token
        if (name, pad) not in self._tokenizers:
            self._tokenizers[name, pad] = tokenizers.load(name, self._words, pad)
        return self._tokenizers[name, pad]

    @cached_property
    def _words(self) -> tokenizers.Words:
        return tokenizers.read(self._bundle.tokenizer or self._bundle.folder)

    @cached_property
    def _t5(self) -> tokenizers.Tokenizer:
        """The tokenizer of T5, which all hosts share."""
        from sdbuild.runtime.tokenizers import t5

        return t5.load(self._bundle.folder / self._bundle.tokenizer_3)

    def length(self, encoder: str) -> int:
        """Returns the number of tokens of a text encoder."""
        return self._networks.shape(encoder, "input_ids")[-1]

    def other_words(self, request: Request) -> tuple[str, ...]:
        """Returns the words of a request's prompts that its host reads as other tokens than
        CLIP."""
        encoder = self._networks.encoders[0]
        own, clip = (self.tokenizer(r, encoder) for r in (request,
                                                          replace(request, tokenizer="clip")))
        length = self.length(encoder)
        words = f"{request.prompt} {request.negative}".split()
        return tuple(dict.fromkeys(
            word for word in words if own.ids(word, length) != clip.ids(word, length)))

    def conditions(self, request: Request) -> dict[str, Condition]:
        """Returns each denoiser's conditions from a request's prompts."""
        of_family = _FAMILIES[self._bundle.family]
        return {name: of_family[name](self, request)
                for name in self._networks.denoisers if name in of_family}

    def _encoded(self, request: Request, encoder: str, prompt: str, *names: str
                 ) -> list[np.ndarray]:
        """Outputs of a text encoder for a prompt."""
        tokens = self.tokenizer(request, encoder).ids(prompt, self.length(encoder))
        found = self._networks.outputs(encoder, {"input_ids": np.array([tokens], np.float32)})
        return [self._networks.taken(encoder, found, name,
                                     (1, None) if name == "pooled_outputs" else (1, None, None))
                for name in names]

    def of_sd(self, request: Request) -> Condition:
        """Returns of Stable Diffusion 1.x and 2.x.

        Shapes:
            encoder_hidden_states: (2, D, 1, S).
        """
        both = [self._encoded(request, "text_encoder", prompt, "last_hidden_state")[0]
                for prompt in (request.negative, request.prompt)]
        return {"encoder_hidden_states": _channels_first(np.concatenate(both))}

    def of_xl(self, request: Request) -> Condition:
        """Returns of Stable Diffusion XL: both encoders' embeddings side by side.

        Shapes:
            encoder_hidden_states: (2, D, 1, S); text_embeds: (2, P); time_ids: (2, 6).
        """
        height, width = self._sides(request)
        return self._of_two(request, ("text_encoder", "text_encoder_2")) | {
            "time_ids": np.array([[height, width, 0, 0, height, width]] * 2, np.float32)}

    def of_refiner(self, request: Request) -> Condition:
        """Returns of Stable Diffusion XL's refiner, which has the second encoder alone.

        Shapes:
            encoder_hidden_states: (2, D, 1, S); text_embeds: (2, P); time_ids: (2, 5).
        """
        height, width = self._sides(request)
        return self._of_two(request, ("text_encoder_2",)) | {
            "time_ids": np.array([[height, width, 0, 0, score] for score in _SCORES], np.float32)}

    def _of_two(self, request: Request, encoders: tuple[str, ...]) -> dict[str, np.ndarray]:
        hidden, pooled = [], []
        for prompt in (request.negative, request.prompt):
            parts = [self._encoded(request, e, prompt, "hidden_embeds", "pooled_outputs")
                     for e in encoders]
            hidden.append(np.concatenate([part[0] for part in parts], axis=-1))
            pooled.append(parts[-1][1])
        if not request.negative and self._is_zero(HOSTS[request.host]) and len(encoders) > 1:
            hidden[0], pooled[0] = np.zeros_like(hidden[0]), np.zeros_like(pooled[0])
        return {"encoder_hidden_states": _channels_first(np.concatenate(hidden)),
                "text_embeds": np.concatenate(pooled)}

    def of_sd3(self, request: Request) -> Condition:
        """Returns of Stable Diffusion 3: both CLIPs' embeddings side by side, filled up with zeros
        to the width of T5's, and T5's tokens behind them, or zeros for these.

        Shapes:
            token_level_text_embeddings: (2, D, 1, S); pooled_text_embeddings: (2, P, 1, 1).
        """
        _, width, _, count = self._networks.shape("transformer", "token_level_text_embeddings")
        tokens = np.zeros((2, count, width), np.float32)
        pooled = []
        for number, prompt in enumerate((request.negative, request.prompt)):
            parts = [self._encoded(request, encoder, prompt, "hidden_embeds", "pooled_outputs")
                     for encoder in self._networks.encoders]
            hidden = np.concatenate([part[0] for part in parts], axis=-1)[0]
            length = len(hidden)
            tokens[number, :length, :hidden.shape[1]] = hidden
            if self._networks.has_t5:
                tokens[number, length:] = self._of_t5(request, prompt)[:count - length]
            pooled.append(np.concatenate([part[1] for part in parts], axis=-1))
        return {"token_level_text_embeddings": _channels_first(tokens),
                "pooled_text_embeddings": np.concatenate(pooled)[..., None, None]}

    def _of_t5(self, request: Request, prompt: str) -> np.ndarray:
        """Returns T5's embeddings of a prompt: (S, D)."""
        name = "text_encoder_3"
        ids = self.tokenizer(request, name).ids(prompt, self.length(name))
        inputs = np.array([ids], np.float32)
        found = self._networks.output(
            name, {"input_ids": inputs, "attention_mask": (inputs != 0).astype(np.float32)},
            "encoder_hidden_states", (1, None, 1, None))
        return found[0, :, 0].T

    def _is_zero(self, host: Host) -> bool:
        """Whether a negative prompt that is not given has an embedding of zeros."""
        return self._bundle.zeroes_empty and not host.encodes_empty

    def _sides(self, request: Request) -> tuple[int, int]:
        """Returns the height and width that the U-Net has as an input, in pixels."""
        fixed = HOSTS[request.host].told_px
        return (fixed, fixed) if fixed else (self._bundle.height_px, self._bundle.width_px)


_FAMILIES: Mapping[str, Mapping[str, Callable[[Prompts, Request], Condition]]] = {
    "sd": {"unet": Prompts.of_sd},
    "sdxl": {"unet": Prompts.of_xl, "refiner": Prompts.of_refiner},
    "sdxl-refiner": {"unet": Prompts.of_refiner},
    "sd3": {"transformer": Prompts.of_sd3},
}
"""Methods that make the inputs of each denoiser, by family."""


def _channels_first(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings as U-Nets take them: (N, S, D) -> (N, D, 1, S)."""
    return embeddings.transpose(0, 2, 1)[:, :, None]
