"""Trust in the records of others, with a secret and without one, counted by the steps that run."""

import json
import os

import pytest

from sdbuild.base.errors import RecipeError
from sdbuild.store import SIGNED, UNSIGNED
from sdbuild.store.remote.remote import SECRET
from tests.store.remote.builders import CHAIN, builder, content

LAST = "compile:unet"


@pytest.fixture
def url(tmp_path, monkeypatch):
    monkeypatch.delenv(SECRET, raising=False)
    return str(tmp_path / "shared")


@pytest.fixture
def made(tmp_path, stages):
    """Has a machine make the last artifact, as a new process; its content, and which stages ran."""
    def make(name, url):
        stages.clear()
        machine = builder(tmp_path / name, url)
        return content(machine, machine.make_all(LAST)), tuple(stages)
    return make


def origins(tmp_path, name, url):
    return {r.origin for r in builder(tmp_path / name, url).store.records()}


@pytest.mark.parametrize("value", ["", " ", "\n"])
def test_an_empty_secret_is_an_error(value, url, tmp_path, stages, monkeypatch):
    """https://github.com/restic/restic/issues/279: an empty password is not a password."""
    monkeypatch.setenv(SECRET, value)

    with pytest.raises(RecipeError, match=f"{SECRET} is empty") as caught:
        builder(tmp_path / "one", url)

    assert "unset" in caught.value.hint


def test_unsigned_records_are_not_believed_once_there_is_a_secret(
    made, url, tmp_path, monkeypatch,
):
    first, _ = made("one", url)
    assert made("two", url) == (first, ())
    assert made("two", url) == (first, ())
    assert origins(tmp_path, "two", url) == {UNSIGNED}

    monkeypatch.setenv(SECRET, "correct horse")

    assert made("two", url) == (first, CHAIN)
    assert made("two", url) == (first, ())
    assert origins(tmp_path, "two", url) == {""}


def test_what_was_made_here_is_believed_with_any_secret(made, url, monkeypatch):
    first, _ = made("one", url)
    monkeypatch.setenv(SECRET, "correct horse")
    assert made("one", url) == (first, ())
    monkeypatch.setenv(SECRET, "another")
    assert made("one", url) == (first, ())


def test_what_is_signed_meanwhile_is_fetched_and_not_made(made, url, tmp_path, monkeypatch):
    made("one", url)
    made("two", url)
    monkeypatch.setenv(SECRET, "correct horse")
    first, ran = made("three", url)  # makes what nobody vouches for, and signs it
    assert ran == CHAIN

    assert made("two", url) == (first, ())

    assert SIGNED in origins(tmp_path, "two", url)


def test_a_planted_artifact_is_gone_with_its_files_once_there_is_a_secret(
    made, url, tmp_path, stages, monkeypatch,
):
    """The file stands for one with a forged quick digest: it is the pool's, and looks whole."""
    true, _ = made("one", url)
    made("two", url)
    two = builder(tmp_path / "two", url)
    entry = two.state(LAST).record.part("large")[0]
    pooled = two.store.object(entry.digest)
    stamp = pooled.stat()
    pooled.chmod(0o644)
    pooled.write_bytes(b"x" * entry.size_bytes)
    os.utime(pooled, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert two.store.has_content(two.state(LAST).record)
    monkeypatch.setenv(SECRET, "correct horse")

    assert made("two", url) == (true, CHAIN)


def test_without_the_shared_store_they_are_not_believed_either(
    made, url, tmp_path, stages, monkeypatch,
):
    made("one", url)
    made("two", url)
    monkeypatch.setenv(SECRET, "correct horse")
    two = builder(tmp_path / "two", url)
    two.remote = None

    assert not two.is_made(LAST)
    assert two.state(LAST).key is None


def test_how_a_record_came_here_is_not_told_to_others(made, url, tmp_path):
    made("one", url)
    made("two", url)
    two = builder(tmp_path / "two", str(tmp_path / "other"))
    assert two.remote.push(two.state(LAST).record)

    (sent,) = (tmp_path / "other" / "records").rglob("*.json")
    assert "origin" not in json.loads(sent.read_text())["record"]


def test_a_record_that_says_itself_that_it_was_signed_is_not_used(made, url, tmp_path, capsys):
    made("one", url)
    for path in (tmp_path / "shared" / "records").rglob("*.json"):
        found = json.loads(path.read_text())
        found["record"]["origin"] = "signed"
        path.write_text(json.dumps(found))

    _, ran = made("two", url)

    assert ran == CHAIN
    assert "vouched" in capsys.readouterr().err
