"""`forget` drops records that there are, and says where there are none."""

import pytest

from sdbuild.cli.main import main
from sdbuild.store import Store

STEP = "download:unet"


@pytest.fixture
def store(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDBUILD_CACHE", str(tmp_path / "cache"))
    assert main(["build", STEP]) == 0
    capsys.readouterr()
    return Store(tmp_path / "cache")


def steps(store):
    return [record.step for record in store.records()]


@pytest.mark.parametrize("task", [STEP, "download"])
def test_a_record_is_dropped(task, store, capsys):
    assert main(["forget", task]) == 0

    assert f"forgetting {STEP}" in capsys.readouterr().out
    assert steps(store) == []


def test_a_damaged_record_is_dropped(store):
    [file] = [f for f in (store.root / "records").rglob("*") if f.is_file()]
    file.write_text("{", "utf-8")

    assert main(["forget", STEP]) == 0
    assert not file.exists()


@pytest.mark.parametrize(("words", "named"), [
    (["convert:unet"], "no record of convert:unet of the recipe tiny-emoji\n"),
    (["trace:unet", "model=tiny-emoji-control", "lower=here"],
     "no record of trace:unet of the recipe tiny-emoji-control\n"),
])
def test_where_there_is_none_it_is_said(words, named, store, capsys):
    assert main(["forget", *words]) == 1

    out, error = capsys.readouterr()
    assert out == ""
    assert named in error and "hint: name the recipe" in error
    assert steps(store) == [STEP]


def test_what_is_no_task_is_said_as_before(store, capsys):
    assert main(["forget", "covert:unet"]) == 3
    assert "covert:unet" in capsys.readouterr().err
