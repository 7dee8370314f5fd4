"""doit's own database, in a project where other builds run or were killed."""

import json

import pytest

from sdbuild.cli import dodo
from sdbuild.cli.main import main


@pytest.fixture
def database(tmp_path, monkeypatch):
    """The file of a new project, which is the current folder."""
    assert main(["init", str(tmp_path / "project"), "--name", "mine"]) == 0
    monkeypatch.chdir(tmp_path / "project")
    (tmp_path / "project/cache").mkdir(exist_ok=True)
    return tmp_path / "project/cache/.doit.json"


@pytest.mark.parametrize("left", ["", '{"build": {"ignore:"', "[]", '{"build": 1}', "[" * 99_999])
def test_a_database_that_another_build_has_half_written_is_an_empty_one(database, left, capsys):
    database.write_text(left)

    dodo.run(["ignore", "contract"], {})

    assert capsys.readouterr().err == ""
    assert set(json.loads(database.read_text())) == {"contract"}


def test_what_is_to_be_ignored_is_remembered(database, capsys):
    dodo.run(["ignore", "contract"], {})

    assert dodo.run(["contract"], {}) == 0
    assert "!! contract" in "".join(capsys.readouterr())
