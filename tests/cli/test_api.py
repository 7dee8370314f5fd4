"""The face for Python, as far as nothing is built."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sdbuild
from sdbuild.base.errors import RecipeError, SourceError
from sdbuild.cli.api import words_of
from sdbuild.recipe.recipe import load
from tests.test_rules import ALL_MODULES, HEAVY, PACKAGE


def test_importing_it_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, sdbuild; sdbuild.build; sdbuild.load_bundle; "
         "sdbuild.mil.palettize if 0 else sdbuild.mil; print(*sys.modules)"],
        capture_output=True, text=True, check=True)
    assert {name.split(".")[0] for name in done.stdout.split()} & HEAVY == set()


def test_everything_that_is_offered_is_there():
    assert {*sdbuild.__all__} <= {*dir(sdbuild)}
    for name in sdbuild.__all__:
        assert getattr(sdbuild, name) is not None
    for name in sdbuild.mil._OFFERED:
        assert getattr(sdbuild.mil, name).__module__.endswith(sdbuild.mil._OFFERED[name])


def test_what_is_not_offered_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'biuld'"):
        sdbuild.biuld  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sdbuild.mil.nothing  # noqa: B018


@pytest.mark.parametrize(("value", "word"), [
    ({"quant": 6}, {"quant": "6"}), ({"quant": None}, {}), ({"guidance": 7.5}, {"guidance": "7.5"}),
    ({"size": (512, 768)}, {"size": "512x768"}), ({"karras": True}, {"karras": "yes"}),
    ({"components": ["unet", "vae_decoder"]}, {"components": "unet,vae_decoder"}),
    ({"cache": Path("a")}, {"cache": "a"}), ({"lora": ["a.safetensors:0.8"]},
                                             {"lora": "a.safetensors:0.8"}),
])
def test_values_of_python_mean_what_their_words_mean_on_the_command_line(value, word):
    assert words_of(value) == word


def test_the_same_variant_is_built_by_a_number_and_by_a_word():
    assert load(words_of({"quant": 4, "size": (128, 128)})).variant == \
        load({"quant": "4", "size": "128"}).variant


def test_a_value_that_no_text_stands_for_is_refused():
    with pytest.raises(RecipeError, match="quant is dict, expected text"):
        sdbuild.build(quant={})


def test_an_unknown_variable_is_an_exception_that_says_what_is_meant():
    with pytest.raises(RecipeError, match='unknown variable \'qunat\'; did you mean "quant"'):
        sdbuild.build("tiny-emoji", qunat=6)


def test_an_unknown_step_is_an_exception_and_nothing_is_printed(tmp_path, capfd):
    with pytest.raises(RecipeError, match='did you mean "convert:unet"'):
        sdbuild.build("tiny-emoji", "convert:uent", cache=tmp_path / "c", bundle=tmp_path / "b")
    assert capfd.readouterr() == ("", "")


def test_a_checkpoint_that_is_not_there_is_an_exception_and_nothing_is_printed(tmp_path, capfd):
    with pytest.raises(SourceError, match="none: there is no such folder"):
        sdbuild.build("tiny-emoji", source=tmp_path / "none", cache=tmp_path / "c",
                      bundle=tmp_path / "b")
    assert capfd.readouterr() == ("", "")


def test_a_step_is_built_and_reused(tmp_path, capfd):
    places = {"cache": tmp_path / "c", "bundle": tmp_path / "b"}

    first = sdbuild.build("tiny-emoji", "download:resources", **places)
    again = sdbuild.build("tiny-emoji", "download:resources", jobs=2, **places)

    assert list(first.ran) == ["download:resources"] == list(again.reused)
    assert (list(first.reused), list(again.ran)) == ([], [])
    assert first.ran == again.reused
    assert capfd.readouterr() == ("", "")


def test_progress_prints_what_the_command_prints(tmp_path, capsys):
    sdbuild.build("tiny-emoji", "download:resources", progress=True, cache=tmp_path / "c",
                  bundle=tmp_path / "b")
    assert capsys.readouterr().out.startswith(".  download:resources\n   download:resources ")


def test_after_a_build_nothing_keeps_collectors_out(tmp_path):
    from sdbuild.reports.gc import collect
    from sdbuild.store import Store

    sdbuild.build("tiny-emoji", "download:resources", cache=tmp_path / "c", bundle=tmp_path / "b")

    assert collect(Store(tmp_path / "c"), []).freed_bytes > 0


PRINTING = ("cli", "mil.cli")


@pytest.mark.parametrize("path", ALL_MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_command_lines_print(path):
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    if name.startswith(tuple(f"{each}." for each in PRINTING)):
        pytest.skip("a command line")
    prints = [node.lineno for node in ast.walk(ast.parse(path.read_text("utf-8")))
              if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"]
    assert prints == []
