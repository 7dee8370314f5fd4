"""Commands that only read, as the pages print them, run in a built project."""

import subprocess
import sys

import pytest
from PIL import Image

from tests.e2e.project import ROOT
from tests.pages import printed

BUNDLES = {"BUNDLE", "Resources", "bundles/tiny-emoji", "bundles/dreamy", "bundles/mine"}
"""Folders of finished bundles, in whose place the built one is used."""
ELSEWHERE = ("remote=", "model=", "source=", "hub:", "variant=", "control=", "model_original",
             "size=")
"""Prefixes of words for things that this project does not have; they have their own tests."""
READ = {"contract", "doctor", "du", "find", "gc", "generate", "history", "info", "list", "recipes",
        "verify", "weight", "why"}
COMMANDS = list({
    command.words: command for command in printed()
    if command.words[0] in ("doit", "sdbuild") and len(command.words) > 1
    and command.words[1] in READ and not command.error
    and not any(word.startswith(ELSEWHERE) for word in command.words)
}.values())


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_printed_command_runs(command, project, built, monkeypatch, tmp_path):
    """`find` ends with 1 where nothing is found."""
    monkeypatch.setenv("SDBUILD_CACHE", str(project.cache))
    is_finished = not BUNDLES.isdisjoint(command.words)
    words = [str(built.bundle) if word in BUNDLES else word for word in command.words]
    words = [_with_a_file(word, tmp_path) for word in words]
    places = [f"bundle={tmp_path / 'bundle'}", f"out={tmp_path / 'image.png'}"]
    if words[1] == "generate":
        words += places[1:] if is_finished else places
        words = [word for word in words if word != "out=penguin.png"]

    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True,
                          check=False)

    assert "Traceback" not in done.stderr
    assert done.returncode in ((0, 1) if words[1] == "find" else (0,)), done.stdout + done.stderr


def _with_a_file(word, folder):
    """The word; an image that it names is there."""
    name, equals, file = word.partition("=")
    if name not in ("image", "mask"):
        return word
    Image.new("RGB", (96, 64), "gray").save(folder / file)
    return f"{name}{equals}{folder / file}"


def test_most_commands_that_read_are_printed_somewhere():
    assert len({command.words[1] for command in COMMANDS}) > 7
