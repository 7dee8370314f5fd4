"""Stores of several machines with one server between them: what is sent and fetched, counted."""

import multiprocessing
import re
import signal
from pathlib import Path

import pytest

from sdbuild.reports.verify import verify
from sdbuild.store import key
from tests.store.remote.machines import (
    PATIENCE_S,
    TEXTS,
    Machine,
    ingredients,
    object_name,
    record_name,
)
from tests.waiting import wait_for


def test_nothing_is_fetched_for_a_record_but_the_record(one, two, s3):
    record = one.put()
    one.remote.push(record)
    s3.wire.forget()

    assert two.remote.find(record.key, record.ingredients) == record

    assert [f"/shared/{s3.folder}/{record_name(record)}"] == s3.wire.paths()
    assert verify(two.store).is_whole  # nobody misses what is only there


def test_only_the_part_that_is_needed_and_is_not_here_is_fetched(one, two, s3):
    record = one.put()
    one.remote.push(record)
    two.put({"other": TEXTS["Unet.mlmodelc/model.mil"]}, n=2)
    two.remote.find(record.key, record.ingredients)
    s3.wire.forget()

    assert two.remote.fetch(record, "Unet.mlmodelc/model.mil")
    assert s3.wire.paths() == []
    assert two.remote.fetch(record)
    assert s3.wire.paths() == [
        f"/shared/{s3.folder}/{object_name(record, 'Unet.mlmodelc/weights/weight.bin')}"]


def test_a_miss_is_asked_for_once(one, s3):
    assert one.get() is None
    assert one.get() is None

    assert len(s3.wire.requests) == 1


def test_the_record_goes_last_and_files_that_are_there_are_not_sent_again(one, s3):
    first, second = one.put(), one.put(TEXTS | {"more": "more"}, n=2)
    one.remote.push(first)
    assert s3.wire.paths("PUT")[-1].endswith(record_name(first))
    s3.wire.forget()

    one.remote.push(second)

    assert [f"/shared/{s3.folder}/{name}"
            for name in (object_name(second, "more"), record_name(second))] == s3.wire.paths("PUT")


def test_small_files_go_with_a_record_whose_large_ones_stay(one, two, s3):
    record = one.put({"architecture.json": "{}", "weights": "w" * 2_000_000})
    assert not one.remote.push(record, is_whole=False)

    assert two.remote.find(record.key, record.ingredients) == record
    assert two.remote.fetch(record, "architecture.json")
    assert not two.remote.fetch(record, "weights")
    assert [f"/shared/{s3.folder}/{object_name(record, 'architecture.json')}"] == [
        path for path in s3.wire.paths("PUT") if "/objects/" in path]


def test_pushing_what_is_there_sends_nothing(one, s3):
    record = one.put()
    one.remote.push(record)
    s3.wire.forget()
    one.restart()

    assert one.remote.push(record)
    assert s3.wire.paths("PUT") == []


def test_a_file_that_was_lost_or_cut_there_is_sent_again(one, s3):
    record = one.put()
    one.remote.push(record)
    s3.write(object_name(record, "Unet.mlmodelc/weights/weight.bin"), b"weigh")
    s3.remove(object_name(record, "Unet.mlmodelc/model.mil"))
    one.restart()

    assert one.remote.push(record)

    assert set(s3.names("objects").values()) == {8000, 3}


def push_from(folder, url, n, start):
    machine = Machine(folder, url)
    record = machine.put(n=n)
    start.wait(PATIENCE_S)  # of others that may have failed
    assert machine.remote.push(record)


@pytest.mark.parametrize("numbers", [(1, 1, 1), (1, 2, 3)], ids=["one key", "other keys"])
def test_machines_may_push_at_once(numbers, tmp_path, two, s3):
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(len(numbers))
    pushes = [spawn.Process(target=push_from, args=(tmp_path / f"m{i}", s3.url, n, start))
              for i, n in enumerate(numbers)]
    for process in pushes:
        process.start()
    for process in pushes:
        process.join()

    assert [0, 0, 0] == [process.exitcode for process in pushes]
    assert all(two.get(n) == TEXTS for n in set(numbers))
    assert len(s3.names("objects")) == 2


def test_a_push_that_is_killed_leaves_no_record_and_is_finished_later(tmp_path, one, two, s3):
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(1)
    process = spawn.Process(target=push_from, args=(tmp_path / "m", s3.url, 1, start))
    s3.wire.holds = {"PUT"}
    process.start()
    wait_for(lambda: s3.wire.paths("PUT"))
    assert process.is_alive()
    process.kill()
    process.join()
    s3.wire.mend()

    assert -signal.SIGKILL == process.exitcode
    assert s3.names("records") == {}
    assert two.get() is None
    assert one.remote.push(one.put())
    two.restart()
    assert two.get() == TEXTS


LARGE_BYTES = 420 << 20


def measured(call, folder, url, peak):
    """Has a new process do something with a file of 420 MiB, and tells the memory it held."""
    machine = Machine(folder, url, timeout_s=PATIENCE_S)
    assert call(machine)
    peak.value = int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def push_large(machine):
    with (machine.folder / "block").open("wb") as file:
        for number in range(LARGE_BYTES >> 20):
            file.write(number.to_bytes(4, "big") * (1 << 18))
    return machine.remote.push(machine.put({"x": "x"}, large=machine.folder / "block"))


def fetch_large(machine):
    return machine.remote.fetch(machine.remote.find(key(ingredients(1)), ingredients(1)))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no peak memory to read")
def test_a_large_file_is_never_whole_in_memory(tmp_path, s3):
    spawn = multiprocessing.get_context("spawn")
    for name, call in (("one", push_large), ("two", fetch_large)):
        peak = spawn.Value("q")
        (tmp_path / name).mkdir()
        process = spawn.Process(target=measured, args=(call, tmp_path / name, s3.url, peak))
        process.start()
        process.join()

        assert process.exitcode == 0
        assert 0 < peak.value * 1024 < 400e6
    s3.clear()
