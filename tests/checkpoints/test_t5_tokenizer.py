"""T5's tokenizer, rewritten for hosts: the same tokens, and no step that they do not know."""

import json

import pytest
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from sdbuild.base.errors import SourceError
from sdbuild.bundle.rules.tokenizer import _STEPS as KNOWN
from sdbuild.checkpoints.t5_tokenizer import host_form
from tests.tiny_checkpoints import t5_tokenizer

PROMPTS = ["a red fox", "", " ", "  two  spaces, and  a tail ", "A cat, sitting on the Mat.",
           "a red </s> fox", "狐 in the snow", "a\ttab\nand lines", "\n"]
NORMALIZERS = {
    "none": None,
    "of both ends": normalizers.Strip(),
    "of the right end, and of runs": normalizers.Sequence([
        normalizers.Strip(left=False), normalizers.Replace(Regex(" {2,}"), "▁")]),
    "of neither end": normalizers.Strip(left=False, right=False),
}
SPLITTERS = {
    "metaspace": pre_tokenizers.Metaspace(),
    "words": pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(),
                                      pre_tokenizers.Metaspace()]),
}


@pytest.mark.parametrize("splitter", SPLITTERS)
@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_the_form_for_hosts_gives_the_same_tokens_without_steps_that_crash_them(
    normalizer, splitter,
):
    own = t5_tokenizer(320)
    own.pre_tokenizer = SPLITTERS[splitter]
    if NORMALIZERS[normalizer]:
        own.normalizer = NORMALIZERS[normalizer]
    own.enable_truncation(4)

    made = host_form("tokenizer.json", own.to_str().encode())
    found = Tokenizer.from_buffer(made)
    own.no_truncation()

    assert [found.encode(p).ids for p in PROMPTS] == [own.encode(p).ids for p in PROMPTS]
    for part, (below, known) in KNOWN.items():
        step = json.loads(made)[part] or {}
        assert {each["type"] for each in step.get(below, [step]) if each} <= set(known)


def test_the_space_before_a_prompt_is_said_by_the_name_that_hosts_read():
    made = json.loads(host_form("tokenizer.json", t5_tokenizer(320).to_str().encode()))

    assert made["pre_tokenizer"]["pretokenizers"][-1]["add_prefix_space"] is True


def test_a_step_that_is_no_t5s_is_left_for_the_contract_to_name():
    own = json.loads(t5_tokenizer(320).to_str())
    own["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never"}

    made = json.loads(host_form("tokenizer.json", json.dumps(own).encode()))

    assert made["pre_tokenizer"] == own["pre_tokenizer"]


@pytest.mark.parametrize("content", [
    b"[]", b"{}", b'{"model": null}', b'{"model": {"type": "BPE", "vocab": {}}}',
    b'{"model": {"type": "Unigram", "vocab": [["a", 0], ["</s>", 0]]}}',
    b'{"model": {"type": "Unigram", "vocab": {}}}', b"\xff", b"<html>",
])
def test_what_is_no_tokenizer_of_t5_is_refused(content):
    with pytest.raises(SourceError, match=r"tokenizer\.json"):
        host_form("tokenizer.json", content)
