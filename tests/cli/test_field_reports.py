"""Command lines and environments that people reported to other tools; see `docs/field-log.md`."""

import json
import os
import pwd
import subprocess
import sys
import tomllib

import pytest

from sdbuild.cli.main import main
from sdbuild.recipe.project import BUILT_IN, Project
from sdbuild.recipe.settings import store_folder
from tests.test_rules import HEAVY, ROOT, loaded


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, as the current one; nothing in the environment."""
    for name in [name for name in os.environ if name.startswith("SDBUILD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def error_of(words, capsys):
    """The message of a usage error."""
    assert main(words) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("words, plain", [
    (["build", "\u2013quant", "4"], "type --quant"),
    (["build", "\u2014quant=4"], "type --quant=4"),
    (["build", "\u2212\u2212help"], "type --help"),
    (["build", "\u201cquant=4\u201d"], "type quant=4"),
    (["generate", "prompt=\u201ca", "fox\u201d"], 'type prompt="a …"'),
    (["generate", "--prompt=\u201ca", "fox\u201d"], 'type --prompt="a …"'),
])
def test_a_dash_or_quote_that_a_web_page_replaced_is_named(words, plain, folder, capsys):
    message = error_of(words, capsys)

    assert "a typographic dash or quote, expected a plain one" in message
    assert plain in message


@pytest.mark.parametrize("prompt", [
    "\u201cstop\u201d on a sign", "a fox \u2014 red", "\u201cstop\u201d", "\u2014",
    "caf\u00e9\u2019s"])
def test_a_prompt_may_have_typographic_dashes_and_quotes(prompt, folder, capsys):
    """The bundle that is not there is what ends these."""
    assert main(["generate", "nowhere", f"prompt={prompt}"]) == 1
    assert main(["generate", "nowhere", "--prompt", prompt]) == 1

    assert "typographic" not in capsys.readouterr().err


def test_a_backtick_at_the_end_of_a_copied_command_is_shown(folder, capsys):
    assert "quant is '4`', expected one of none, 1, 2, 3, 4, 6, 8; did you mean \"4\"?" in error_of(
        ["why", "quant=4`"], capsys)


@pytest.mark.parametrize("word", ["quant =4", " quant=4", "SSD/dreamy.safetensors"])
def test_a_word_that_can_be_no_task_is_never_ignored(word, folder, capsys):
    message = error_of(["build", word], capsys)

    assert f"{word!r}: expected a task, or name=value" in message
    assert "a value that has spaces is quoted" in message


@pytest.mark.parametrize("command", ["recipes", "build", "why", "doctor", "init", "generate"])
def test_in_a_folder_that_was_deleted_every_command_says_so(command, folder, monkeypatch, capsys):
    (folder / "gone").mkdir()
    monkeypatch.chdir(folder / "gone")
    (folder / "gone").rmdir()

    assert main([command]) == 1
    assert main(["--help"]) == 0
    monkeypatch.chdir(folder)

    assert capsys.readouterr().err == (
        "ERROR: the current folder was deleted\n\nhint: change to a folder that exists: cd ~\n")


def test_a_folder_in_place_of_sdbuild_toml_is_an_error(folder, monkeypatch, capsys):
    (folder / "sdbuild.toml").mkdir()
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")

    assert "sdbuild.toml: a folder, expected a file" in error_of(["build"], capsys)


def test_without_a_home_the_store_is_in_the_current_folder(folder, monkeypatch):
    """As for a user that a container does not know."""
    def unknown(uid):
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr("sys.platform", "linux")

    assert Project.here().cache == folder / "cache"
    assert store_folder({"cache": str(folder / "mine")}) == folder / "mine"


def test_an_empty_variable_of_the_environment_is_not_set(folder, monkeypatch):
    expected = store_folder({})
    monkeypatch.setenv("SDBUILD_CACHE", "")

    assert store_folder({}) == expected != folder


def test_a_recipe_that_notepad_saved_can_be_locked(folder, capsys):
    """A byte order mark and two characters at the end of each line; neither is read as content."""
    text = (BUILT_IN / "tiny-emoji.toml").read_text("utf-8").replace(
        'source = "tiny-emoji"', 'source = "builtin:tiny-emoji"')
    path = folder / "mine.toml"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())

    assert main(["lock", "mine.toml", f"cache={folder / 'cache'}"]) == 0
    assert main(["lock", "mine.toml", f"cache={folder / 'cache'}"]) == 0

    found = path.read_bytes()
    assert b"\xef\xbb\xbf" not in found[3:]
    assert set(tomllib.loads(found.decode("utf-8-sig"))) == {*tomllib.loads(text), "lock"}


@pytest.mark.parametrize("line", ["sdbuild why --model ", "sdbuild build --scheduler d"])
def test_completion_is_silent_where_the_project_is_broken(line, folder):
    (folder / "sdbuild.toml").write_text("qunat = 4\n[", "utf-8")

    done = subprocess.run(
        [sys.executable, "-m", "sdbuild"], capture_output=True, text=True, check=False,
        env=os.environ | {"_SDBUILD_COMPLETE": "bash_complete", "COMP_WORDS": line,
                          "COMP_CWORD": str(line.count(" ")), "PYTHONPATH": str(ROOT)})

    assert (done.returncode, done.stderr) == (0, "")


def test_completion_imports_nothing_heavy():
    code = ("import os\n"
            "os.environ |= {'_SDBUILD_COMPLETE': 'bash_complete', 'COMP_CWORD': '3',\n"
            "               'COMP_WORDS': 'sdbuild why --model tiny'}\n"
            "from sdbuild.cli.main import main\n"
            "try:\n    main([])\nexcept SystemExit:\n    pass")

    assert loaded(code) & (HEAVY | {"doit"}) == set()


def test_a_list_that_is_cut_by_head_shows_no_traceback(tmp_path):
    """Unbuffered, so that the pipe breaks while lines are written, as in containers."""
    done = subprocess.run(
        f"{sys.executable} -m sdbuild recipes | head -n 1", shell=True, capture_output=True,
        text=True, cwd=ROOT, env=os.environ | {"PYTHONUNBUFFERED": "1"}, check=True)

    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_notes_of_a_plan_do_not_stand_in_its_json(folder, capsys):
    """A recipe that is found for a checkpoint is worth a note, which is for people."""
    source = str(BUILT_IN / "tiny-emoji")

    assert main(["why", "--json", f"source={source}", f"cache={folder / 'cache'}"]) == 0

    assert json.loads(capsys.readouterr().out)["steps"]

