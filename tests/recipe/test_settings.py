"""Paths given on a command line: home folders, and folders that only look like one."""

import pwd
from pathlib import Path

import pytest

from sdbuild.base.errors import RecipeError
from sdbuild.recipe.settings import settings
from sdbuild.store import Store
from sdbuild.store.remote.remote import remote_at

PLACES = {"cache": "x", "bundle": "x", "out": "x.png", "report": "x.json", "remote": "x"}


@pytest.mark.parametrize("name", PLACES)
def test_a_place_may_begin_with_a_home(tmp_path, monkeypatch, name):
    monkeypatch.setenv("HOME", str(tmp_path))

    found = getattr(settings({name: f"~/{PLACES[name]}"}), name)

    assert Path(found) == tmp_path.resolve() / PLACES[name]


@pytest.mark.parametrize("name", PLACES)
def test_nothing_is_put_into_the_home_of_nobody(name):
    with pytest.raises(RecipeError) as caught:
        settings({name: f"~nobody-here/{PLACES[name]}"})

    path = f"~nobody-here/{PLACES[name]}"
    assert caught.value.message == (
        f"on the command line: {name} is '{path}', expected a path: ~nobody-here is not "
        f"the home of a user, ./{path} is a name")
    assert caught.value.hint.startswith(f"{name}: ")


@pytest.mark.parametrize("name", PLACES)
def test_a_home_that_the_system_does_not_tell_is_asked_for(monkeypatch, name):
    def unknown(_):
        raise KeyError
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)

    with pytest.raises(RecipeError, match="expected a path: ~ is not the home of a user"):
        settings({name: f"~/{PLACES[name]}"})


def test_a_folder_that_is_called_like_a_home_is_one_all_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    found = settings({"cache": "./~nobody-here", "remote": "./~nobody-there"})

    assert found.cache == tmp_path / "~nobody-here"
    remote = remote_at(found.remote, Store(found.cache))
    assert str(remote._there) == str(tmp_path / "~nobody-there")


def test_a_url_has_no_home():
    assert settings({"remote": "memory://~nobody-here"}).remote == "memory://~nobody-here"
