"""Facts about a network in the files of its scheduler and tokenizer."""

import json

import pytest

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints.resources import TOKENIZER, TOKENIZER_2, Resources
from sdbuild.checkpoints.sidecar_configs import (
    SIDECAR_FACTS,
    host_tokenizer,
    padding,
    prediction,
    unspoken,
)

SCHEDULER = {"beta_start": 0.1, "beta_end": 0.2, "beta_schedule": "linear", "trained_betas": None,
             "num_train_timesteps": 10, "steps_offset": 1}
VOCABULARY = {"!": 0, "a</w>": 1, "<|endoftext|>": 3}


def scheduler(**fields):
    return {"scheduler/scheduler_config.json": json.dumps(SCHEDULER | fields).encode()}


def tokenizer(vocabulary=VOCABULARY, **files):
    names = {"special": "special_tokens_map", "config": "tokenizer_config"}
    return {"tokenizer/vocab.json": json.dumps(vocabulary).encode()} | {
        f"tokenizer/{names[name]}.json": json.dumps(content).encode()
        for name, content in files.items()
    }


@pytest.mark.parametrize("fields", [{}, {"prediction_type": "epsilon"}])
def test_noise_is_not_worth_a_word(fields):
    assert prediction(scheduler(**fields), {}) is None


def test_a_velocity_comes_with_the_schedule_that_defines_it_and_nothing_else():
    found = prediction(scheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True), {})

    assert found == {"type": "v_prediction", "schedule": {
        "beta_start": 0.1, "beta_end": 0.2, "beta_schedule": "linear", "num_train_timesteps": 10,
        "rescale_betas_zero_snr": True,
    }}


@pytest.mark.parametrize("own, asked, kind", [
    ("epsilon", "v_prediction", "v_prediction"), ("v_prediction", "epsilon", None),
    (None, "v_prediction", "v_prediction"),
])
def test_who_knows_better_is_believed(own, asked, kind):
    found = prediction(scheduler(prediction_type=own), {"prediction_type": asked})

    assert (found and found["type"]) == kind


@pytest.mark.parametrize("files", [
    {"special": {"pad_token": "!"}}, {"config": {"pad_token": "!"}},
    {"special": {"pad_token": {"content": "!", "lstrip": False}}},
    {"special": {"pad_token": "!"}, "config": {"pad_token": "<|endoftext|>"}},
])
def test_a_pad_token_of_its_own_is_reported_by_number(files):
    assert padding(tokenizer(**files), {}) == {"end_token_id": 3, "pad_token_id": 0}


def test_a_token_that_only_the_config_numbers_is_found():
    added = {"9": {"content": "<pad>", "special": True}, "3": {"content": "<|endoftext|>"}}
    files = {"config": {"pad_token": "<pad>", "added_tokens_decoder": added}}

    assert padding(tokenizer(**files), {}) == {"end_token_id": 3, "pad_token_id": 9}


def test_words_that_a_tokenizer_adds_are_those_of_neither_vocabulary_nor_padding():
    added = {"3": {"content": "<|endoftext|>"}, "9": {"content": "<pad>"},
             "10": {"content": "<cat-toy>"}, "11": {"content": "<cat-toy>_1"}}
    files = {"config": {"pad_token": "<pad>", "added_tokens_decoder": added}}

    assert unspoken(tokenizer(**files)) == ["<cat-toy>", "<cat-toy>_1"]
    assert unspoken(tokenizer()) == []


def test_words_that_a_tokenizer_in_one_file_adds_are_found():
    """As transformers 5 saves it, after diffusers' `load_textual_inversion`."""
    model = {"type": "BPE", "vocab": VOCABULARY, "merges": [], "end_of_word_suffix": "</w>"}
    added = [{"id": 3, "content": "<|endoftext|>"}, {"id": 4, "content": "<cat-toy>"}, "no token"]
    file = json.dumps({"model": model, "added_tokens": added}).encode()
    found = Resources("there", [TOKENIZER.one_file], lambda name: file)

    assert unspoken(found) == ["<cat-toy>"]


@pytest.mark.parametrize("files", [{}, {"special": {}}, {"config": {"pad_token": "<|endoftext|>"}}])
def test_padding_with_the_end_token_is_not_worth_a_word(files):
    assert padding(tokenizer(**files), {}) is None


def second(tokenizer):
    return {name.replace("tokenizer/", "tokenizer_2/"): text for name, text in tokenizer.items()}


MERGES = {"tokenizer/merges.txt": b"#version: 0.2\na b</w>\n"}


def test_each_of_two_tokenizers_pads_with_its_own():
    both = tokenizer() | second(tokenizer(special={"pad_token": "!"}))
    found = {folder: SIDECAR_FACTS[folder][1](both, {}) for folder in ("tokenizer", "tokenizer_2")}

    assert found == {"tokenizer": None, "tokenizer_2": {"end_token_id": 3, "pad_token_id": 0}}


@pytest.mark.parametrize("resources, wanted", [
    (tokenizer() | MERGES, TOKENIZER), (second(tokenizer() | MERGES), TOKENIZER_2),
    (tokenizer() | MERGES | second(tokenizer(special={"pad_token": "!"}) | MERGES), TOKENIZER),
    (tokenizer() | MERGES | second(tokenizer() | {"tokenizer/merges.txt": b"a b</w>"}), TOKENIZER),
], ids=["first", "second", "both", "without the first line"])
def test_a_host_is_given_one_tokenizer(resources, wanted):
    assert host_tokenizer(resources) == wanted


@pytest.mark.parametrize("other, message", [
    (tokenizer(VOCABULARY | {"b": 4}) | MERGES, "tokenizer_2/vocab.json: it differs from"),
    (tokenizer() | {"tokenizer/merges.txt": b"b a</w>"}, "tokenizer_2/merges.txt: it differs from"),
])
def test_two_tokenizers_that_no_host_can_have_at_once_are_refused(other, message):
    with pytest.raises(SourceError, match=message):
        host_tokenizer(tokenizer() | MERGES | second(other))


@pytest.mark.parametrize("written, resources, message", [
    (padding, tokenizer(special={"pad_token": "<pad>"}), "no number for <pad>"),
    (padding, tokenizer(config={"pad_token": {"id": 0}}), "pad_token is .*, expected a token"),
    (padding, tokenizer(vocabulary={"!": 0}), r"no number for <\|endoftext\|>"),
    (padding, tokenizer(vocabulary=[]), "vocab.json: a list, expected a JSON object"),
    (prediction, {"scheduler/scheduler_config.json": b"{"}, "scheduler_config.json: not JSON"),
    (prediction, scheduler(prediction_type=None), "does not say what its U-Net predicts"),
    (prediction, scheduler(prediction_type=["epsilon"]), "prediction_type is a list, expected"),
    (prediction, scheduler(num_train_timesteps=1e10), "num_train_timesteps is 10000000000.0"),
    (prediction, scheduler(num_train_timesteps=10**10), "is 10000000000, expected an integer"),
    (prediction, scheduler(num_train_timesteps="1000"), "num_train_timesteps is '1000'"),
    (prediction, scheduler(solver_order=10**9), "'solver_order' is 1000000000, expected at most"),
    (prediction, scheduler(trained_betas=[0.1] * 20_000), "trained_betas has 20000 numbers"),
    (prediction, scheduler(trained_betas=["a"]), "trained_betas is a list, expected a list of int"),
    (prediction, scheduler(beta_end=float("nan")), "beta_end is nan, expected a number from 0"),
    (prediction, scheduler(shift=float("nan")), "shift is nan, expected a number from 0.001"),
    (prediction, {"scheduler/scheduler_config.json": b"[" * 10_000}, "nested more than 64"),
])
def test_a_file_that_is_not_sound_is_named(written, resources, message):
    with pytest.raises(SourceError, match=message):
        written(resources, {})
