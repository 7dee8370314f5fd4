"""A tokenizer in one file, as transformers 5 saves it, gives the two files that hosts read."""

import json
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints.folder import Folder
from sdbuild.checkpoints.resources import TOKENIZER, two_files
from sdbuild.checkpoints.sidecar_configs import padding

VOCABULARY, MERGES = TOKENIZER.vocabulary, TOKENIZER.merges
CHECKPOINT = Path(__file__).parent.parent.parent / "recipes" / "tiny-emoji"
VOCABULARY_OF_ALL = {"a": 0, "b": 1, "b</w>": 2, "ab</w>": 3, "<|startoftext|>": 4,
                     "<|endoftext|>": 5, "ä": 6}
MODEL = {"type": "BPE", "end_of_word_suffix": "</w>", "continuing_subword_prefix": "",
         "vocab": VOCABULARY_OF_ALL, "merges": [["a", "b</w>"]]}


def one_file(**changes):
    return json.dumps({"version": "1.0", "model": MODEL | changes}).encode()


@pytest.fixture
def saved(tmp_path):
    """A checkpoint's resources, with the tokenizer as the installed transformers saves it."""
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler/scheduler_config.json").write_text("{}")

    def save(**tokens):
        tokenizer = CLIPTokenizer.from_pretrained(CHECKPOINT / "tokenizer", **tokens)
        tokenizer.save_pretrained(tmp_path / "tokenizer")
        return Folder(tmp_path)
    return save


def test_what_transformers_saves_has_the_vocabulary_and_the_merges_that_it_was_made_from(saved):
    folder = saved()

    found, made_from = folder.resources(), CHECKPOINT / "tokenizer"

    assert not (folder.path / VOCABULARY).exists()
    assert json.loads(found[VOCABULARY]) == json.loads((made_from / "vocab.json").read_bytes())
    merges, wanted = found[MERGES].decode(), (made_from / "merges.txt").read_text("utf-8")
    assert merges.splitlines()[1:] == wanted.splitlines()[1:]
    assert merges.startswith("#version: 0.2\n") and merges.endswith("\n")


def test_its_identity_names_the_one_file(saved):
    found = saved().identity("tokenizer", lambda path: path.name)

    assert found == {TOKENIZER.one_file: "tokenizer.json",
                     "tokenizer/tokenizer_config.json": "tokenizer_config.json"}


@pytest.mark.parametrize("tokens, wanted", [
    ({"pad_token": "!"}, {"end_token_id": 49407, "pad_token_id": 0}), ({}, None),
])
def test_what_transformers_saves_tells_what_prompts_are_padded_with(saved, tokens, wanted):
    assert padding(saved(**tokens).resources(), {}) == wanted


def test_the_two_files_are_taken_where_they_are(saved):
    folder = saved()
    for name, content in ((VOCABULARY, "{}"), (MERGES, "#version: 0.2\n")):
        (folder.path / name).write_text(content)

    found = folder.resources()

    assert (found[VOCABULARY], found[MERGES]) == (b"{}", b"#version: 0.2\n")
    assert set(folder.identity("tokenizer", str)) >= {VOCABULARY, MERGES}
    assert TOKENIZER.one_file not in found


@pytest.mark.parametrize("merge", ["a b</w>", ["a", "b</w>"]])
def test_merges_are_read_as_texts_and_as_pairs(merge):
    found = two_files("x", one_file(merges=[merge]))

    assert found[MERGES] == b"#version: 0.2\na b</w>\n"


def test_words_come_by_their_numbers_and_in_utf_8():
    found = two_files("x", one_file(vocab=dict(reversed(VOCABULARY_OF_ALL.items()))))

    assert found[VOCABULARY].decode() == (
        '{"a":0,"b":1,"b</w>":2,"ab</w>":3,"<|startoftext|>":4,"<|endoftext|>":5,"ä":6}')


@pytest.mark.parametrize("content, message", [
    (b"<html>", "not JSON: a web page"),
    (b"\xff", "not UTF-8 at byte 0"),
    (b"[" * 100_000, "nested more than 64 levels"),
    (b"{}", "no 'model'"),
    (b'{"model": []}', "its model is a list, expected a JSON object"),
    (one_file(type="Unigram"), "it is 'Unigram', expected BPE"),
    (one_file(end_of_word_suffix=None), "words end with None, expected '</w>'"),
    (one_file(vocab=[["a", 0]]), "vocab is a list, expected a JSON object"),
    (one_file(vocab=VOCABULARY_OF_ALL | {"c": True}), "True for 'c', expected an integer"),
    (one_file(vocab=VOCABULARY_OF_ALL | {"c": 3}), "two words have one number"),
    (one_file(vocab=VOCABULARY_OF_ALL | {"\ud800": 7}), "half a surrogate pair"),
    (one_file(merges=[["a", "b</w>"], "a"]), "merge 2 is 'a', expected two words"),
    (one_file(merges=[["a", "c"]]), "merge 1 is .*, expected two words"),
    (one_file(merges=[["a", "b"]]), "merge 1 is .* in the vocabulary"),
    (one_file(merges=None), "not iterable"),
    (one_file(vocab=VOCABULARY_OF_ALL | {"c": 10**18}), "expected an integer below"),
    (b" " * (33 << 20), "34603008 bytes, expected at most"),
])
def test_a_file_that_is_no_tokenizer_like_clips_is_refused(content, message):
    with pytest.raises(SourceError, match=f"^here: .*{message}"):
        two_files("here", content)
