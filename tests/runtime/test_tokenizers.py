"""Tokens: those of transformers, and those of Apple's Swift package."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import CLIPTokenizer

from sdbuild.base.errors import BundleError
from sdbuild.runtime import tokenizers
from sdbuild.runtime.prompts import Prompts
from sdbuild.runtime.tokenizers import load, read
from tests.runtime import swift

CLIP = Path(__file__).parent.parent.parent / "recipes" / "tiny-emoji" / "tokenizer"
END, PAD_2 = "<|endoftext|>", "!"
CASES = swift.data("tokens")
PROMPTS = [*(case["prompt"] for case in CASES), "a fox! wow !", "x" * 500, "[[red]] ## #a",
           "fox " * 80 + "and a penguin"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: ascii(case["prompt"])[:40])
def test_the_swift_package_gets_these_tokens(case):
    assert load("swift", read(CLIP), END).ids(case["prompt"], 77) == case["ids"][:77]


@pytest.mark.parametrize("pad", [END, PAD_2])
def test_tokens_and_what_is_cut_off_are_those_of_transformers(pad):
    theirs = CLIPTokenizer.from_pretrained(str(CLIP), pad_token=pad)
    ours = load("clip", read(CLIP), pad)

    for prompt in PROMPTS:
        wanted = theirs(prompt, padding="max_length", max_length=77, truncation=True).input_ids
        words = theirs(prompt, add_special_tokens=False, verbose=False).input_ids
        assert ours.ids(prompt, 77) == wanted, prompt
        assert ours.truncated(prompt, 77) == theirs.decode(words[75:]), prompt


def test_a_comma_after_a_word_is_another_token_in_the_swift_package():
    known = json.loads((CLIP / "vocab.json").read_text("utf-8"))

    clips, swifts = (load(name, read(CLIP), END).ids("a dog, red", 77)
                     for name in ("clip", "swift"))

    assert clips[1:5] == [known[w] for w in ("a</w>", "dog</w>", ",</w>", "red</w>")]
    assert swifts[1:5] == [known[w] for w in ("a</w>", "dog", ",</w>", "red</w>")]


def copied(folder, **files):
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_text((CLIP / name).read_text("utf-8"), "utf-8")
    for name, change in files.items():
        path = next(folder.glob(f"{name}.*"))
        path.write_bytes(change(path.read_bytes()))
    return folder


def test_merges_with_the_line_ends_of_windows_are_lost_on_the_swift_package_alone(tmp_path):
    """Its every prompt becomes letters, and it says nothing."""
    folder = copied(tmp_path, merges=lambda content: content.replace(b"\n", b"\r\n"))

    ours, swifts = (load(name, read(folder), END).ids("a fox", 77) for name in ("clip", "swift"))

    assert ours[1:4] == [320, 3240, 49407]
    assert swifts[1:5] != ours[1:5]
    assert len([t for t in swifts if t != 49407]) == 5  # the start, and each letter alone


@pytest.mark.parametrize("files, said", [
    ({"vocab": lambda _: b"<html>"}, "a web page"),
    ({"vocab": lambda _: b'{"a": "b"}'}, "expected a number"),
    ({"vocab": lambda _: b'{"a": 1}'}, "no <|startoftext|>"),
    ({"merges": lambda content: content + b"one\n"}, "has 1 words, expected two"),
    ({"merges": lambda _: b"\xff\xfe"}, "not UTF-8"),
])
@pytest.mark.parametrize("name", ["clip", "swift"])
def test_files_that_are_no_tokenizer_are_refused_by_name(tmp_path, files, said, name):
    with pytest.raises(BundleError, match=rf"{next(iter(files))}\.") as refused:
        load(name, read(copied(tmp_path, **files)), END)

    assert said in str(refused.value)


def test_the_words_of_a_bundle_are_read_once_for_all_of_its_tokenizers(monkeypatch):
    found = []
    monkeypatch.setattr(tokenizers, "read", lambda folder: found.append(folder) or read(folder))
    prompts = Prompts(SimpleNamespace(tokenizer=CLIP, pad_token=END, pad_token_2=PAD_2), None)

    made = {id(prompts.tokenizer(SimpleNamespace(tokenizer=name), encoder))
            for name in ("clip", "swift") for encoder in ("text_encoder", "text_encoder_2")}

    assert len(made) == 4
    assert found == [CLIP]
