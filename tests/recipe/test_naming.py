"""Names of bundles: they show what was asked for, and what differs never shares a place."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdbuild.recipe.recipe import load
from sdbuild.recipe.settings import settings

REST = "128x128-original-6bit-2chunks-iOS16"


def name_of(**words):
    return settings({"model": "tiny-emoji"} | words).bundle.name


@pytest.mark.parametrize(("words", "shown"), [
    ({"source": "dreamy.safetensors"}, "-dreamy"),
    ({"source": "some folder/Dreamy v1.5"}, "-Dreamy_v1.5"),
    ({"source": "dreamy_compiled.zip"}, "-dreamy_compiled"),
    ({"source": "hub:owner/Dreamy-XL@0123abc"}, "-Dreamy-XL"),
    ({"source": "a.safetensors,hub:owner/b"}, "-a"),
    ({"unet": "hub:latent-consistency/lcm-sdxl"}, "-unet-lcm-sdxl"),
    ({"vae": "hub:stabilityai/sd-vae-ft-mse"}, "-vae-sd-vae-ft-mse"),
    ({"lora": "ink.safetensors:0.8,light.safetensors,dark.safetensors:-1"},
     "-lora-ink_0.8-light-dark_-1"),
    ({"prediction_type": "v_prediction", "lora": "ink.safetensors", "source": "mine"},
     "-mine-v_prediction-lora-ink"),
    ({"components": "unet"}, ""),
    ({"source": "/"}, ""),
])
def test_a_name_shows_what_was_asked_for_and_ends_with_digits_of_all_of_it(words, shown):
    assert re.fullmatch(re.escape(f"tiny-emoji{shown}-{REST}-") + "[0-9a-f]{6}", name_of(**words))


def test_what_every_variant_has_makes_no_digits():
    assert name_of(batch="1", quant="none", chunk="1", size="64") == (
        "tiny-emoji-64x64-original-fp16-batch1-iOS16")


@pytest.mark.parametrize("words", [
    ({"source": "one/dreamy.safetensors"}, {"source": "two/dreamy.safetensors"}),
    ({"source": "x", "vae": "one/kl"}, {"source": "x", "vae": "two/kl"}),
    ({"lora": "one/ink.safetensors"}, {"lora": "two/ink.safetensors"}),
    ({"lora": "a,b"}, {"lora": "b,a"}),
    ({"lora": "ink.safetensors:0.8"}, {"lora": "ink.safetensors:0.80001"}),
    ({"source": "hub:owner/name@one"}, {"source": "hub:owner/name@two"}),
    ({"config": "one"}, {"config": "two"}),
    ({"batch": "1"}, {"batch": "2"}),
    ({"size": "64"}, {"size": "64x72"}),
])
def test_two_that_differ_have_two_places(words):
    words = [one | {"source": one.get("source", "x.safetensors")} for one in words]

    assert len({name_of(**one) for one in words}) == 2


def test_the_same_spelled_otherwise_has_the_same_place(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    names = [name_of(source=text) for text in ("mine", "./mine/", "~/mine", f"{tmp_path}/mine")]
    monkeypatch.chdir(tmp_path / "in")
    names.append(name_of(source="../mine"))

    assert len(set(names)) == 1
    assert name_of(source="mine") not in names  # which is another one here
    assert name_of(components="unet,vae_decoder") == name_of(components="vae_decoder,unet")


def test_recipes_of_one_name_in_two_folders_have_two_places(tmp_path):
    names = set()
    for folder in ("one", "two"):
        path = tmp_path / folder / "mine.toml"
        path.parent.mkdir()
        path.write_text('family = "sd"\nsource = "a"\nsize = "64"\ncomponents = ["unet"]\n')
        names.add(name_of(model=str(path)))

    assert len(names) == 2
    assert all(name.startswith("mine-64x64-") for name in names)


# A name has at most 255 bytes, and a character at most four.
PLACES = st.text(min_size=1, max_size=60).filter(
    lambda text: text.strip() and not {"\0", ",", ":"} & set(text)
    and text.encode("utf-8", "ignore").decode() == text)


@given(PLACES, PLACES)
def test_any_checkpoint_and_lora_make_a_name_that_a_folder_can_have(source, lora):
    name = load({"model": "tiny-emoji", "source": source, "lora": lora}).variant

    assert Path(name).name == name
    assert not name.startswith(".") and name.isprintable() and " " not in name
    assert len(os.fsencode(name)) < 200
