"""The same sentences for every kind of place that a store can be shared at."""

import itertools
import threading

import pytest

from sdbuild.base.errors import RemoteFailed
from sdbuild.reports.verify import verify
from sdbuild.store.remote.transport import Transport
from tests.store.remote.builders import LARGE_BYTES, builder, content
from tests.store.remote.machines import Machine, object_name

NAME = "records/ab/abcd.json"


@pytest.fixture
def one(place, tmp_path, stages):
    """A machine that has built and uploaded all that it made."""
    machine = builder(tmp_path / "one", place.url)
    machine.make_all("compile:unet")
    stages.clear()
    return machine


@pytest.fixture
def two(one, place, tmp_path):
    """A machine that has nothing yet, but the same place."""
    return builder(tmp_path / "two", place.url)


def made(machine):
    return content(machine, machine.make_all("compile:unet"))


def test_a_fresh_machine_has_the_same_bundle_and_runs_nothing(one, two, stages):
    assert made(one) == made(two)
    assert stages == []


def test_a_fresh_machine_fetches_the_bytes_of_the_last_artifact_alone(two, wire):
    wire.forget()

    made(two)

    assert LARGE_BYTES * 0.99 < wire.received < LARGE_BYTES * 1.1  # each step made as much


def test_a_half_written_file_is_refused_made_here_and_mended(place, one, two, stages, capsys):
    name = object_name(one.state("compile:unet").record, "large")
    good = place.read(name)
    place.write(name, good[:len(good) // 2])

    assert made(one) == made(two)

    assert stages == ["compile"]
    assert "large is damaged there; it is made here" in capsys.readouterr().err
    assert place.read(name) == good


def test_a_connection_that_is_cut_in_the_middle_of_a_file_is_tried_again(one, two, wire, stages):
    wire.cut_after, wire.cuts = LARGE_BYTES // 2, 1

    assert made(one) == made(two)

    assert wire.cuts == 0
    assert stages == []


def test_a_server_that_goes_away_in_the_middle_of_a_file_ends_no_build(
    one, two, wire, stages, capsys
):
    wire.cut_after, wire.cuts = LARGE_BYTES // 2, 1000

    assert made(one) == made(two)

    assert stages == ["trace", "chunk", "compile"]
    said = capsys.readouterr().err
    assert said.endswith("going on without it\n") and said.count("\n") == 1
    assert verify(two.store).is_whole


def test_a_server_that_is_gone_is_reported_once(place, tmp_path, wire, capsys):
    wire.is_away = True
    machine = Machine(tmp_path, place.url)

    assert machine.get(1) is None
    assert machine.get(2) is None
    assert not machine.remote.push(machine.put(n=3))

    said = capsys.readouterr().err
    assert said.endswith("going on without it\n") and said.count("\n") == 1


def test_wrong_credentials_are_reported_and_not_shown(place, tmp_path, wire, capsys):
    machine = Machine(tmp_path, place.strange_url)

    assert machine.get(1) is None
    assert machine.get(2) is None
    assert not machine.remote.push(machine.put(n=3))

    said = capsys.readouterr().err
    assert 1 <= said.count("\n") <= 2  # of reading and of writing
    assert "other" not in said and "Traceback" not in said
    assert place.names() == set()


def test_who_may_not_write_still_reads(place, one, two, wire, stages, capsys, tmp_path):
    place.forbid_writing()
    before = place.names()
    machine = Machine(tmp_path, place.url)

    assert not machine.remote.push(machine.put(n=1))
    assert not machine.remote.push(machine.put(n=2))
    assert made(one) == made(two)

    assert stages == []
    said = capsys.readouterr().err
    assert said.endswith("nothing is uploaded\n") and said.count("\n") == 1
    assert place.names() == before


def test_a_file_that_is_overwritten_is_always_whole(place, tmp_path):
    """Some servers take the old one away a moment before the new one is in its place."""
    texts = [bytes([n]) * 400_000 for n in range(2)]
    for n, text in enumerate(texts):
        (tmp_path / str(n)).write_bytes(text)
    writer, reader = Transport(place.url), Transport(place.url)
    writer.write(tmp_path / "0", NAME)
    is_over = threading.Event()

    def write():
        for n in itertools.cycle((1, 0)):
            writer.write(tmp_path / str(n), NAME)
            if is_over.is_set():
                return

    thread = threading.Thread(target=write)
    thread.start()
    seen = []
    for _ in range(20):
        if reader.read(NAME, tmp_path / "read", 400_000):
            seen.append((tmp_path / "read").read_bytes())
    is_over.set()
    thread.join()

    assert set(seen) <= set(texts) and seen
    assert place.names() == {NAME}


def test_an_upload_that_is_cut_leaves_what_was_there(place, wire, tmp_path):
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "new").write_bytes(b"new" * 200_000)
    there = Transport(place.url, 20)
    there.write(tmp_path / "old", NAME)

    wire.cut_sent_after = 300_000
    with pytest.raises(RemoteFailed):
        there.write(tmp_path / "new", NAME)
    wire.mend()

    assert place.read(NAME) == b"old"
    assert there.size(NAME) == 3
    there.write(tmp_path / "new", NAME)
    assert place.read(NAME) == b"new" * 200_000
