"""Paths from outside: those that no file can have are refused in words, before they are used."""

import pytest

from sdbuild.base.errors import RecipeError
from sdbuild.base.paths import outside_path, real_path
from sdbuild.cli.main import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("loop", "loop.png", "loop.toml"):
        (tmp_path / name).symlink_to(name)
    return tmp_path


@pytest.mark.parametrize(("path", "message"), [
    ("", "expected a path, which is not empty"), ("a\0b", "without the character NUL"),
    ("caf\udce9", "expected a path in UTF-8"), ("a" * 256, "at most 255 bytes, not 256"),
    ("x/" + "é" * 128, "at most 255 bytes, not 256"), ("a/" * 3000, "cannot be looked up"),
    ("loop", "cannot be looked up"), ("loop/x", "cannot be looked up"),
])
def test_a_path_that_no_file_can_have_is_refused(folder, path, message):
    with pytest.raises(RecipeError, match=message) as caught:
        outside_path(path, "cache")
    assert caught.value.message.startswith("cache is ")


@pytest.mark.parametrize("path", ["none", "none/x", "file/x", "é" * 127, "~nobody", "a" * 255])
def test_a_path_that_leads_to_nothing_yet_is_taken(folder, path):
    (folder / "file").write_text("")

    assert str(outside_path(path, "cache")) == path


def test_the_real_path_of_a_loop_is_no_error(folder):
    assert real_path(folder / "loop").name == "loop"


BAD = ["loop", "a" * 300, "a\0", "\ud800"]


@pytest.mark.parametrize("bad", BAD, ids=ascii)
@pytest.mark.parametrize("words", [
    ["contract", "{}"], ["relink", "{}", "unet"], ["generate", "{}"], ["init", "{}"],
    ["export", "convert:unet", "{}"], ["mil", "show", "{}"], ["mil", "diff", "a", "{}"],
    ["mil", "run", "a", "--out", "{}"], ["mil", "run", "a", "--input", "x={}"],
    ["mil", "compile", "a", "{}"], ["mil", "chunk", "a", "b", "{}"], ["du", "cache={}"],
    ["why", "bundle={}"], ["why", "out={}.png"], ["why", "report={}"], ["why", "remote={}"],
    ["why", "model={}.toml"], ["why", "model={}"], ["lock", "{}.toml"], ["why", "source={}"],
    ["why", "model=tiny-emoji", "vae={}"], ["why", "model=tiny-emoji", "config={}"],
    ["why", "model=tiny-emoji", "lora={}:1"],
], ids=" ".join)
def test_each_path_of_each_command_is_checked(folder, capsys, words, bad):
    status = 0
    try:
        status = main([word.format(bad) for word in words])
    except SystemExit as ended:
        status = ended.code

    assert status == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("bad", ["loop", "a" * 300])
def test_paths_of_the_environment_and_the_project_are_checked(folder, capsys, monkeypatch, bad):
    (folder / "sdbuild.toml").write_text(f"bundle = '{bad}'")
    assert main(["why"]) == 2
    assert "bundle is " in capsys.readouterr().err

    monkeypatch.setenv("SDBUILD_BUNDLE", bad)
    (folder / "sdbuild.toml").write_text("")
    assert main(["why"]) == 2
    assert "bundle is " in capsys.readouterr().err
