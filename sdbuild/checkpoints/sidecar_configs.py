"""Properties of a network that other files state: what its output is, how its input is padded."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sdbuild.base.errors import SourceError
from sdbuild.base.parsing import decoded_text, json_object, looks_like, shown
from sdbuild.checkpoints.resources import (
    SCHEDULER,
    TOKENIZER,
    TOKENIZER_2,
    TOKENIZERS,
    Resources,
    Tokenizer,
    check_numbers,
    vocabulary_file,
)
from sdbuild.checkpoints.schedule import check_schedule, predicts

START_TOKEN = "<|startoftext|>"
END_TOKEN = "<|endoftext|>"
"""The token that ends a prompt. Hosts pad with it, too."""

_NUMBER = re.compile(r"[0-9]{1,8}")
_SCHEDULE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
             "rescale_betas_zero_snr")


def scheduler(resources: Mapping[str, bytes], params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the scheduler's config; a download's `prediction_type` is put in the place of its
    own.

    Raises:
        SourceError: it is none, or does not say what the U-Net predicts.
    """
    # diffusers writes "lambda_min_clipped": -Infinity
    found = json_object(resources[SCHEDULER], SCHEDULER, SourceError, has_infinities=True)
    check_schedule(found, SCHEDULER, SourceError)
    if "prediction_type" in params:
        found["prediction_type"] = params["prediction_type"]
    found["prediction_type"] = predicts(found)
    if found["prediction_type"] is None:
        raise SourceError(
            "as a file of Stable Diffusion 2 it does not say what its U-Net predicts "
            "(prediction_type), and a wrong guess generates noise",
            hint="prediction_type=v_prediction for models made for 768x768, "
                 "prediction_type=epsilon for those (-base) made for 512x512",
        )
    return found


def prediction(resources: Mapping[str, bytes], params: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns what a U-Net predicts, and its schedule of noise; None if it predicts noise.

    Raises:
        SourceError: the scheduler's config is none, or does not say it.
    """
    found = scheduler(resources, params)
    if found["prediction_type"] == "epsilon":
        return None
    schedule = {name: found[name] for name in _SCHEDULE if found.get(name) is not None}
    return {"type": found["prediction_type"], "schedule": schedule}


def padding(resources: Mapping[str, bytes], params: Mapping[str, Any],
            tokenizer: Tokenizer = TOKENIZER) -> dict[str, int] | None:
    """Returns the numbers of the tokens that end and pad prompts; None if they are the same.

    Stable Diffusion 2.x, and the second text encoder of XL, were trained on prompts padded with
    `!`.

    Raises:
        SourceError: the tokenizer's files are not sound, or lack one of these tokens.
    """
    vocabulary = tokenizer.vocabulary
    known = _added(resources, tokenizer) | vocabulary_file(vocabulary, resources[vocabulary])
    found = {"end_token_id": END_TOKEN, "pad_token_id": _pad_token(resources, tokenizer)}
    for token in found.values():
        if type(known.get(token)) is not int:
            raise SourceError(f"{vocabulary}: no number for {token}, expected one",
                              hint="the tokenizer belongs to another model, or was changed: use "
                                   "the folder that came with the checkpoint")
    numbers = {name: known[token] for name, token in found.items()}
    return numbers if len(set(numbers.values())) == 2 else None


def _pad_token(resources: Mapping[str, bytes], tokenizer: Tokenizer) -> str:
    for name in (tokenizer.special_tokens, tokenizer.config):
        found = _table(resources, name).get("pad_token") if name in resources else None
        token = found.get("content") if isinstance(found, dict) else found
        if isinstance(token, str):
            return token
        if found is not None:
            raise SourceError(f"{name}: pad_token is {shown(found)}, expected a token")
    return END_TOKEN


def _added(resources: Mapping[str, bytes], tokenizer: Tokenizer) -> dict[str, int]:
    """Returns the tokens that the tokenizer's config numbers: `{"49408": {"content": "<pad>", …},
    …}`."""
    config = _table(resources, tokenizer.config) if tokenizer.config in resources else {}
    found = config.get("added_tokens_decoder")
    if not isinstance(found, dict):
        return {}
    return {str(token.get("content")): int(number) for number, token in found.items()
            if _NUMBER.fullmatch(number) and isinstance(token, dict)}


def unspoken(resources: Mapping[str, bytes], tokenizer: Tokenizer = TOKENIZER) -> list[str]:
    """Returns the words that a tokenizer adds to its vocabulary, which no host reads."""
    vocabulary = tokenizer.vocabulary
    known = vocabulary_file(vocabulary, resources[vocabulary]).keys()
    added = set(_added(resources, tokenizer))
    if isinstance(resources, Resources):
        added |= resources.added(tokenizer)
    return sorted(added - known - {_pad_token(resources, tokenizer)})


def _table(resources: Mapping[str, bytes], name: str) -> dict[str, Any]:
    return vocabulary_file(name, resources[name])


def host_tokenizer(resources: Mapping[str, bytes]) -> Tokenizer:
    """Returns the tokenizer that a host is given: it has one, whichever of two text encoders it
    feeds.

    Raises:
        SourceError: the two of a checkpoint are not the same, so that no host has both.
    """
    found = [tokenizer for tokenizer in TOKENIZERS if tokenizer.vocabulary in resources]
    first, *others = found or [TOKENIZER]
    for other in others:
        for one, two, read in ((first.vocabulary, other.vocabulary, _table),
                               (first.merges, other.merges, _rules)):
            if read(resources, one) != read(resources, two):
                raise SourceError(
                    f"{two}: it differs from {one}, expected one tokenizer for both text encoders",
                    hint="apps have one tokenizer: use both folders that came with the "
                         "checkpoint",
                )
    return first


def check_tokenizer(resources: Mapping[str, bytes], tokenizer: Tokenizer = TOKENIZER) -> None:
    """Makes sure that a tokenizer's two files can be what hosts read, which crash on others.

    Raises:
        SourceError: a word has no number, a special token is missing, or a rule is not two words.
    """
    name = tokenizer.vocabulary
    vocabulary = vocabulary_file(name, resources[name])
    try:
        check_numbers(vocabulary)
    except ValueError as error:
        raise SourceError(f"{name}: {error}") from error
    for token in (START_TOKEN, END_TOKEN):
        if token not in vocabulary:
            raise SourceError(f"{name}: no number for {token}, expected CLIP's vocabulary")
    rules = _rules(resources, tokenizer.merges)
    for number, rule in enumerate(rules, 1):
        if len(rule.split(" ")) != 2:
            raise SourceError(
                f"{tokenizer.merges}: rule {number} is {shown(rule)}, expected two words")
    if not rules:
        raise SourceError(f"{tokenizer.merges}: no rules, expected CLIP's")
    for name in (tokenizer.special_tokens, tokenizer.config):
        if name in resources:
            _table(resources, name)


def _rules(resources: Mapping[str, bytes], name: str) -> list[str]:
    """Returns the lines of a file of merges that are none of comment."""
    what, hint = looks_like(resources[name])
    if what:  # each line of a pointer of Git LFS is two words
        raise SourceError(f"{name}: {what}, expected the rules of byte pairs", hint=hint)
    merges = decoded_text(resources[name], name, SourceError)
    return [line for line in merges.split("\n") if line and not line.startswith("#")]


ReadFact = Callable[[Mapping[str, bytes], Mapping[str, Any]], Mapping[str, Any] | None]

SIDECAR_FACTS: Mapping[str, tuple[str, ReadFact]] = {
    "scheduler": ("prediction", prediction),
    "tokenizer": ("padding", padding),
    "tokenizer_2": ("padding", partial(padding, tokenizer=TOKENIZER_2)),
}
"""Facts read from the small files of each folder: the fact's name in an architecture, and its
reader."""
