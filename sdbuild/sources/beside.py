"""What the files beside a network say of it: what its output is, what its input is padded with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sdbuild.errors import SourceError
from sdbuild.sources.resources import SCHEDULER, SPECIAL_TOKENS, TOKENIZER_CONFIG, VOCABULARY

END_TOKEN = "<|endoftext|>"
"""What ends a prompt. Hosts pad with it, too."""

_SCHEDULE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
             "rescale_betas_zero_snr")


def scheduler(resources: Mapping[str, bytes], params: Mapping[str, Any]) -> dict[str, Any]:
    """The scheduler's config; a download's `prediction_type` is put in the place of its own.

    Raises:
        SourceError: it is none, or does not say what the U-Net predicts.
    """
    found = _table(resources, SCHEDULER)
    if "prediction_type" in params:
        found["prediction_type"] = params["prediction_type"]
    if found.setdefault("prediction_type", "epsilon") is None:
        raise SourceError(
            "a file of Stable Diffusion 2 does not say what its U-Net predicts, "
            "and a wrong guess draws noise",
            hint="prediction_type=v_prediction for models made for 768x768, "
                 "prediction_type=epsilon for those (-base) made for 512x512",
        )
    return found


def prediction(resources: Mapping[str, bytes], params: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a U-Net predicts, and the schedule of noise that this is said in; None if it is noise.

    Raises:
        SourceError: the scheduler's config is none, or does not say it.
    """
    found = scheduler(resources, params)
    if found["prediction_type"] == "epsilon":
        return None
    schedule = {name: found[name] for name in _SCHEDULE if found.get(name) is not None}
    return {"type": found["prediction_type"], "schedule": schedule}


def padding(resources: Mapping[str, bytes], params: Mapping[str, Any]) -> dict[str, int] | None:
    """The numbers of the tokens that end and pad prompts; None if they are the same.

    Stable Diffusion 2.x was trained on prompts padded with `!`.

    Raises:
        SourceError: the tokenizer's files are not sound, or lack one of these tokens.
    """
    known = _added(resources) | _table(resources, VOCABULARY)
    found = {"end_token_id": END_TOKEN, "pad_token_id": _pad_token(resources)}
    for token in found.values():
        if type(known.get(token)) is not int:
            raise SourceError(f"{VOCABULARY}: no number for {token}")
    numbers = {name: known[token] for name, token in found.items()}
    return numbers if len(set(numbers.values())) == 2 else None


def _pad_token(resources: Mapping[str, bytes]) -> str:
    for name in (SPECIAL_TOKENS, TOKENIZER_CONFIG):
        found = _table(resources, name).get("pad_token") if name in resources else None
        token = found.get("content") if isinstance(found, dict) else found
        if isinstance(token, str):
            return token
        if found is not None:
            raise SourceError(f"{name}: pad_token is {found!r}, expected a token")
    return END_TOKEN


def _added(resources: Mapping[str, bytes]) -> dict[str, int]:
    """The tokens that the tokenizer's config numbers: `{"49408": {"content": "<pad>", …}, …}`."""
    config = _table(resources, TOKENIZER_CONFIG) if TOKENIZER_CONFIG in resources else {}
    found = config.get("added_tokens_decoder")
    if not isinstance(found, dict):
        return {}
    return {str(token.get("content")): int(number) for number, token in found.items()
            if number.isdecimal() and isinstance(token, dict)}


def _table(resources: Mapping[str, bytes], name: str) -> dict[str, Any]:
    try:
        found = json.loads(resources[name])
    except ValueError as error:
        raise SourceError(f"{name}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise SourceError(f"{name}: {type(found).__name__}, expected a JSON object")
    return found


Told = Callable[[Mapping[str, bytes], Mapping[str, Any]], Mapping[str, Any] | None]

TOLD: Mapping[str, tuple[str, Told]] = {
    "scheduler": ("prediction", prediction),
    "tokenizer": ("padding", padding),
}
"""What the files of each folder tell, by its name in an architecture."""
