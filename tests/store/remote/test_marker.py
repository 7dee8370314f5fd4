"""A shared store is marked; nothing is ever written to a place that is something else."""

import json

import pytest

from sdbuild.base.errors import RecipeError
from sdbuild.store import Store
from sdbuild.store.remote import backends
from sdbuild.store.remote.marker import MARKER
from sdbuild.store.remote.remote import Remote
from tests.store.remote.builders import builder
from tests.store.remote.machines import Machine, record_name

LISTING = ("folder", "sftp", "webdav", "s3")
"""The kinds of places that tell what they hold; HTTP does not."""


@pytest.fixture
def lists(request, place):
    if request.node.callspec.params["place"] not in LISTING:
        pytest.skip("HTTP has no listing")


def machine(tmp_path, place, name="machine"):
    (tmp_path / name).mkdir()
    return Machine(tmp_path / name, place.url)


def content(place):
    return {name: place.read(name) for name in place.names()}


def filled(place, folder, names=lambda name: True):
    """Fills a place with what is in a folder; what it holds then."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and names(name):
            place.write(name, path.read_bytes())
    return content(place)


@pytest.fixture
def colleague(tmp_path, stages):
    """The folder of a local store that something was built in."""
    built = builder(tmp_path / "colleague", str(tmp_path / "elsewhere"))
    built.make_all("compile:unet")
    return built.store.root


def test_an_empty_place_is_marked_by_the_first_push_and_not_before(place, tmp_path):
    one = machine(tmp_path, place)

    one.remote.check()
    assert place.names() == set()
    assert one.remote.push(one.put())

    assert json.loads(place.read(MARKER)) == {"format": "sdbuild shared store", "version": 1}
    one.restart()
    one.remote.check()


def test_a_folder_that_is_there_and_empty_may_be_used(tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / ".DS_Store").write_text("")
    one = Machine(tmp_path, str(tmp_path / "shared"))

    one.remote.check()

    assert one.remote.push(one.put())


@pytest.mark.parametrize("marker", [None, b"", b"{", b"<html>", b'{"format": "another"}'])
def test_a_shared_store_without_its_marker_is_adopted_and_marked(marker, place, tmp_path):
    """As those were from before there were markers, or where old files are removed by a rule."""
    one = machine(tmp_path, place)
    one.remote.push(one.put())
    whole = content(place)
    place.remove(MARKER) if marker is None else place.write(MARKER, marker)
    two = machine(tmp_path, place, "two")

    two.remote.check()
    assert content(place).get(MARKER) == marker
    assert two.remote.push(two.put())

    assert content(place) == whole


def test_a_local_store_is_refused_and_stays_as_it_is(place, colleague, tmp_path, capsys):
    """https://github.com/treeverse/dvc/issues/3703: a cache that is used as a remote."""
    before = filled(place, colleague)
    one = machine(tmp_path, place)

    with pytest.raises(RecipeError, match=r"holds (gone\.json|locks).*expected a shared store"):
        one.remote.check()
    assert not one.remote.push(one.put())

    assert content(place) == before
    assert "nothing is uploaded" in capsys.readouterr().err


def test_a_local_store_is_known_by_its_records(place, lists, colleague, tmp_path):
    before = filled(place, colleague, lambda name: name.startswith(("records/", "objects/")))
    one = machine(tmp_path, place)

    with pytest.raises(RecipeError, match=r"holds the record records/.*\.json of a local store"):
        one.remote.check()
    assert not one.remote.push(one.put())

    assert content(place) == before


def test_the_record_of_a_local_store_is_never_written_over(place, tmp_path, capsys):
    """Also where nothing can be listed."""
    one = machine(tmp_path, place)
    record = one.put()
    before = filled(place, one.store.root, lambda name: name.startswith("records/"))

    assert not one.remote.push(record)

    assert content(place) == before
    assert "local store" in capsys.readouterr().err
    assert record_name(record) in before


@pytest.mark.parametrize("name", ["holiday.jpg", "locks/store", "work/x", "roots/a.json",
                                  "data/records/a"])
def test_whatever_else_a_place_holds_is_left_alone(name, place, lists, tmp_path):
    """https://github.com/restic/restic/issues/279: half a store in somebody's home."""
    place.write(name, b"mine")
    one = machine(tmp_path, place)

    with pytest.raises(RecipeError, match=f"holds {name.partition('/')[0]}, expected") as caught:
        one.remote.check()
    assert not one.remote.push(one.put())

    assert "empty folder" in caught.value.hint
    assert content(place) == {name: b"mine"}


def test_a_marked_place_may_hold_more(place, tmp_path):
    one = machine(tmp_path, place)
    one.remote.push(one.put())
    place.write("README.md", b"ours")
    one.restart()

    one.remote.check()

    assert one.remote.push(one.put(n=2))


def test_a_place_that_cannot_be_listed_is_read_and_not_written_to(
    one, machines, s3, monkeypatch, capsys,
):
    """As with keys of S3 without the permission to list."""
    def forbidden(place, folder):
        raise PermissionError("Access Denied")

    shared = one.put()
    one.remote.push(shared)
    s3.remove(MARKER)
    before = s3.names()
    monkeypatch.setattr(backends.S3, "names", forbidden)
    two = machines("two")

    two.remote.check()
    assert not two.remote.push(two.put(n=2))

    assert two.remote.find(shared.key, shared.ingredients) == shared
    assert s3.names() == before
    said = capsys.readouterr().err
    assert "not known to be a shared store" in said and said.count("\n") == 1


@pytest.mark.parametrize("url", ["{}", "{}/", "{}/records", "{}/new/deep", "file://{}",
                                 "{}/../cache", "{}-link", "{}-link/x"])
@pytest.mark.parametrize("is_there", [True, False])
def test_the_own_store_is_refused_by_whatever_path(url, is_there, tmp_path):
    cache = tmp_path / "cache"
    if is_there:
        (cache / "records").mkdir(parents=True)
    (tmp_path / "cache-link").symlink_to(cache)

    with pytest.raises(RecipeError, match="is in the local store"):
        Remote(url.format(cache), Store(cache))


@pytest.mark.parametrize("url", ["{}-2", "{}/../shared", "memory://{}"])
def test_a_folder_beside_the_own_store_is_not_the_own_store(url, tmp_path):
    Remote(url.format(tmp_path / "cache"), Store(tmp_path / "cache")).check()
