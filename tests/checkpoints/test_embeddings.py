"""Learned words: the tokens that hosts make of them, and the rows that hold their vectors."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints.embeddings import embedding
from sdbuild.checkpoints.embeddings.words import Words
from sdbuild.engine.build import Builder
from sdbuild.engine.stage import Job, stage
from sdbuild.recipe.settings import settings
from sdbuild.reports.why import why
from sdbuild.runtime.tokenizers import load, read
from sdbuild.runtime.tokenizers.swift import Tokenizer
from tests.loras import TINY_EMOJI, checkpoint
from tests.runtime import swift

END = "<|endoftext|>"
CLIP = TINY_EMOJI / "tokenizer"
KNOWN = json.loads((CLIP / "vocab.json").read_text("utf-8"))
MERGES = (CLIP / "merges.txt").read_text("utf-8")
TABLE = "text_model.embeddings.token_embedding.weight"


def vectors(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) / 20


def file_of(path, **tensors):
    save_file(tensors, path)
    return path


def embed(folder, files, *, encoder=None, words=None, family="sd", component="text_encoder"):
    """Runs the step for the tokenizer, and for a text encoder if one is given."""
    words = [{"word": word} for word in words] if words else [{"file": f.stem} for f in files]
    inputs = {name: CLIP / name for name in ("vocab.json", "merges.txt")}
    for label, part, base in (("tokenizer", "", CLIP), ("encoder", component, encoder)):
        if base is not None:
            (folder / label).mkdir(parents=True)
            facts = stage("embed").run(Job(
                params={"component": part, "family": family, "words": words},
                inputs={**inputs, "checkpoint": base}, output=folder / label,
                places=[str(file) for file in files]))
            if not part:
                said = facts["words"]
    return said


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A tokenizer and a text encoder with a word of one vector and one of three."""
    folder = tmp_path_factory.mktemp("learned")
    files = [file_of(folder / "learned_embeds.safetensors", **{"<cat-toy>": vectors(64)}),
             file_of(folder / "Bad-Hand.safetensors", emb_params=vectors(3, 64, seed=1))]
    words = embed(folder, files, encoder=checkpoint(folder / "base", "text_encoder"))
    return folder, files, words


@pytest.fixture(scope="module")
def hosts(learned):
    """The tokenizers of three hosts on the files with the words."""
    folder = learned[0] / "tokenizer"
    theirs = CLIPTokenizer.from_pretrained(folder, pad_token=END)
    words = read(folder)
    return {"clip": load("clip", words, END).ids, "swift": load("swift", words, END).ids,
            "transformers": lambda prompt, length: theirs(
                prompt, padding="max_length", max_length=length, truncation=True).input_ids}


def test_words_are_those_of_the_file_or_its_name_in_letters(learned):
    assert learned[2] == [["cattoy"], ["badhand", "badhanda", "badhandb"]]


@pytest.mark.parametrize(("prompt", "wanted"), [
    ("a photo of cattoy", ["cattoy"]),
    ("CatToy, badhand badhanda badhandb.", ["cattoy", "badhand", "badhanda", "badhandb"]),
    ("(cattoy:1.3) and badhandb!", ["cattoy", "badhandb"]),
    ("cattoy's friend, cattoy-like cattoy2", ["cattoy"] * 3),
])
def test_every_host_gets_rows_that_hold_the_vectors(learned, hosts, prompt, wanted):
    folder, files, words = learned
    table = load_file(folder / "encoder" / "weights.safetensors")[TABLE]
    known = [load_file(files[0])["<cat-toy>"], *load_file(files[1])["emb_params"]]
    names = [word for each in words for word in each]

    found = {name: tokens(prompt, 77) for name, tokens in hosts.items()}

    assert found["clip"] == found["transformers"]
    for tokens in found.values():
        assert [names[n] for i in tokens for n, vector in enumerate(known)
                if torch.equal(table[i], vector)] == wanted


@pytest.mark.parametrize("case", swift.data("tokens"), ids=lambda case: ascii(case["prompt"])[:40])
def test_prompts_without_the_words_keep_their_tokens_in_the_swift_package(hosts, case):
    assert hosts["swift"](case["prompt"], 77) == case["ids"][:77]


def test_every_word_of_the_vocabulary_that_a_prompt_reaches_keeps_its_tokens(hosts):
    before, length = load("clip", read(CLIP), END).ids, 1 << 18
    text = " ".join(word.removesuffix("</w>") for word in KNOWN) + " über öde ÀÁ õÿ \U0001f98a 字"

    assert hosts["clip"](text, length) == before(text, length)


def test_a_file_of_the_same_size_is_written_whose_other_rows_stay(learned):
    made = load_file(learned[0] / "encoder" / "weights.safetensors")
    base = load_file(learned[0] / "base" / "weights.safetensors")

    changed = (made[TABLE] != base[TABLE]).any(1).nonzero()[:, 0].tolist()
    assert made[TABLE].shape == base[TABLE].shape and len(changed) == 8
    assert max(changed) < KNOWN["<|startoftext|>"]  # old configs pool at the highest number
    assert all(torch.equal(made[name], base[name]) for name in base if name != TABLE)


def test_rules_end_with_a_line_end_whatever_the_checkpoint_has(tmp_path, learned):
    shutil.copytree(CLIP, tmp_path / "own")
    merges = tmp_path / "own" / "merges.txt"
    merges.write_bytes(merges.read_bytes().rstrip(b"\n"))

    (tmp_path / "out").mkdir()
    stage("embed").run(Job(
        params={"component": "", "family": "sd", "words": [{"word": "cattoy"}]},
        inputs={"checkpoint": tmp_path / "own", "merges.txt": merges,
                "vocab.json": CLIP / "vocab.json"},
        output=tmp_path / "out", places=[str(learned[1][0])]))

    assert (tmp_path / "out" / "merges.txt").read_text("utf-8").endswith(
        "\ncat toy</w>\ncat toy\n")


@pytest.fixture
def own_words():
    return Words(KNOWN, MERGES)


@pytest.mark.parametrize(("word", "problem"), [
    ("cat", "already"), ("dreamyinkstyle", "tokens so far"), ("my_style", "letters from a to z"),
    ("", "letters from a to z"), ("stränge", "letters from a to z"),
    *((word, "already") for word in ("a", "nan", "bar", "incarcerated", "quotation")),
])
def test_a_word_that_apps_cannot_tell_from_others_is_refused(own_words, word, problem):
    with pytest.raises(SourceError, match=problem) as error:
        own_words.add(word, 1)
    offered = error.value.hint.partition("embedding=FILE:WORD names another, such as ")[2]
    assert [own_words.add(other, 1)[0].word for other in offered.split(", ")] == (
        offered.split(", "))


def test_a_word_is_that_of_one_embedding(own_words):
    own_words.add("wolfy", 2)

    for word in ("wolfy", "wolfya"):
        with pytest.raises(SourceError, match=f"the word {word}: another embedding has it"):
            own_words.add(word, 1)


def test_suggested_words_can_be_used(own_words):
    with pytest.raises(SourceError) as error:
        own_words.add("dreamyinkstyle", 3)

    suggested = error.value.hint.partition("such as ")[2].split(", ")
    assert len(suggested) == 3
    for word in suggested:
        assert own_words.add(word, 3)[0].word == word


def test_a_word_that_more_may_not_follow_has_others_for_its_vectors(own_words):
    """`negative` is two tokens where no space follows."""
    words = [each.word for each in own_words.add("easynegative", 8)]

    assert words[0] == "easynegative" and len(set(words)) == 8
    made = Tokenizer(json.loads(own_words.vocabulary), own_words.merges.decode(), END)
    assert len([i for i in made.ids(" ".join(words), 77) if i < 49406]) == 8


def test_no_more_vectors_than_there_are_tokens_to_spare(own_words):
    with pytest.raises(SourceError, match="no tokens are left") as error:
        for word in ("cattoy", "badhand", "redcat", "papercut", "inkmonster"):
            own_words.add(word, 14)
    assert "56" in error.value.hint


@pytest.mark.parametrize(("tensors", "problem"), [
    ({"emb_params": torch.ones(1, 768)}, "768 wide, expected 64.*for Stable Diffusion 1\n"),
    ({"emb_params": torch.ones(1, 1024)}, "1024 wide, expected 64.*for Stable Diffusion 2\n"),
    ({"emb_params": torch.full((1, 64), float("nan"))}, "NaN"),
])
def test_vectors_that_do_not_fit_are_refused(tmp_path, tensors, problem):
    file = file_of(tmp_path / "e.safetensors", **tensors)

    with pytest.raises(SourceError, match=problem):
        embed(tmp_path, [file], words=["cattoy"],
              encoder=checkpoint(tmp_path / "base", "text_encoder"))


@pytest.mark.parametrize(("tensors", "family", "problem"), [
    ({"clip_l": torch.ones(2, 8), "clip_g": torch.ones(2, 16)}, "sd", "found clip_g, clip_l"),
    ({"emb_params": torch.ones(2, 8)}, "sdxl", "expected clip_l and clip_g"),
    ({"clip_l": torch.ones(2, 8), "clip_g": torch.ones(3, 16)}, "sdxl", "as many vectors"),
    ({"emb_params": torch.ones(2, 8), "<x>": torch.ones(8)}, "sd", "one tensor for each"),
    ({"emb_params": torch.ones(1, 8), "lora_te_text_model_x.lora_down.weight": torch.ones(2, 8)},
     "sd", "is a LoRA, exp"),
    ({"lora_te_text_model_x.lora_down.weight": torch.ones(2, 8)}, "sd", "is a LoRA, exp"),
    ({"w": torch.ones(1, 2, 3)}, "sd", "expected an embedding"),
    ({}, "sd", "0 tensors, expected an embedding"),
    ({"emb_params": torch.ones(200, 8)}, "sd", r"emb_params has the shape \[200, 8\], expected"),
    ({"emb_params": torch.ones(0, 8)}, "sd", r"emb_params has the shape \[0, 8\], expected"),
    ({"w": torch.ones(2, 8, dtype=torch.int32)}, "sd", "expected floats"),
])
def test_a_file_for_other_text_encoders_is_found_when_sources_are_reached(
        tmp_path, tensors, family, problem):
    file = file_of(tmp_path / "e.safetensors", **tensors)

    with pytest.raises(SourceError, match=problem) as error:
        embedding.expect_family(Path(file), family)
    assert str(file) in error.value.message


def test_the_names_of_a_flattened_pickle_are_no_word(tmp_path):
    file = file_of(tmp_path / "inkcat.safetensors", **{"string_to_param.*": vectors(64)})

    assert embed(tmp_path, [file]) == [["inkcat"]]


@pytest.mark.parametrize(("tensor", "word", "problem"), [
    (torch.ones(1, 768), "wolfy", "768 wide, expected 64.*for Stable Diffusion 1"),
    (torch.ones(1, 64), "cat", "the word cat: it is in the vocabulary already"),
])
def test_what_does_not_fit_the_checkpoint_is_found_before_anything_runs(
        tmp_path, tensor, word, problem):
    """By `why` too, which otherwise says what would run."""
    file = file_of(tmp_path / "e.safetensors", emb_params=tensor)
    words = {"model": "tiny-emoji", "cache": str(tmp_path / "cache"),
             "embedding": f"{file}:{word}", "lower": "here"}
    builder = Builder.of(settings(words))

    for find in (partial(builder.reach_sources, list(builder.plan.steps)),
                 partial(why, "build", words)):
        with pytest.raises(SourceError, match=problem) as error:
            find()
        assert str(file) in error.value.message


def test_a_text_encoder_computes_what_diffusers_does_with_the_embedding(learned, hosts):
    folder, files, _ = learned
    pipe = StableDiffusionPipeline.from_pretrained(TINY_EMOJI, safety_checker=None)
    pipe.load_textual_inversion(files[0])
    pipe.load_textual_inversion(files[1], token="badhand")
    prompt = pipe.maybe_convert_prompt("a <cat-toy> and badhand", pipe.tokenizer)
    with torch.inference_mode():
        wanted = pipe.text_encoder(pipe.tokenizer(
            prompt, padding="max_length", return_tensors="pt").input_ids)

    net = StableDiffusionPipeline.from_pretrained(TINY_EMOJI, safety_checker=None).text_encoder
    names = {name.removeprefix("text_model."): tensor for name, tensor in
             load_file(folder / "encoder" / "weights.safetensors").items()}
    net.load_state_dict(names, strict=False)
    tokens = hosts["swift"]("a cattoy and badhand badhanda badhandb", 77)
    with torch.inference_mode():
        found = net(torch.tensor([tokens]))

    torch.testing.assert_close(found.last_hidden_state, wanted.last_hidden_state, rtol=0, atol=0)


def test_both_text_encoders_of_xl_hold_a_word_in_the_same_rows(tmp_path):
    pairs = {"text_encoder": vectors(2, 8), "text_encoder_2": vectors(2, 16, seed=1)}
    file = file_of(tmp_path / "style.safetensors", clip_l=pairs["text_encoder"],
                   clip_g=pairs["text_encoder_2"])
    rows = set()
    for part, wanted in pairs.items():
        base = tmp_path / part
        base.mkdir()
        save_file({TABLE: torch.zeros(49408, wanted.shape[1], dtype=torch.bfloat16)},
                  base / "weights.safetensors")
        (base / "architecture.json").write_text("{}")
        embed(tmp_path / f"{part}-made", [file], encoder=base, words=["redcat"], component=part,
              family="sdxl")

        made = load_file(tmp_path / f"{part}-made" / "encoder" / "weights.safetensors")[TABLE]
        rows.add(tuple(made.any(1).nonzero()[:, 0].tolist()))
        assert torch.equal(made[[32, 33]], wanted.to(torch.bfloat16))
    assert rows == {(32, 33, 288, 289)}
