"""Stores of several machines with one S3 server between them, counted, cut and corrupted."""

import hashlib
import json
import multiprocessing
import re
import signal
import time
from pathlib import Path

import pytest
from file_server import FileServer
from s3_server import DENIED

from sdbuild.sharing.remote import Remote
from sdbuild.step import key
from sdbuild.store import Entry, Record, Store
from sdbuild.upkeep.verify import verify

TEXTS = {"Unet.mlmodelc/weights/weight.bin": "weights " * 1000, "Unet.mlmodelc/model.mil": "mil"}


class Machine:
    """A store of its own, and the shared one."""

    def __init__(self, folder, url, **options):
        self.folder, self.url, self.options = folder, url, options
        self.store = Store(folder / "cache")
        self.restart()

    def restart(self):
        self.remote = Remote(self.url, self.store, **({"timeout_s": 20} | self.options))

    def put(self, texts=TEXTS, n=1, large=None):
        out = self.folder / f"out-{n}"
        for name, text in texts.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(text)
        if large:
            large.rename(out / "large")
        made = ingredients(n)
        return self.store.put(out, Record(
            key=key(made), step="compile:unet", ingredients=made, tree=(), seconds=1.25,
            peak_bytes=10, made_at="2026-01-01T00:00:00+00:00", host=self.folder.name))

    def get(self, n=1):
        """The artifact as this machine would have it before it builds, or None."""
        made = ingredients(n)
        record = self.store.find(key(made)) or self.remote.find(key(made), made)
        if record is None or not self.remote.fetch(record):
            return None
        place = self.store.checkout(record, self.folder / f"laid-{n}")
        return {p.relative_to(place).as_posix(): p.read_text()
                for p in place.rglob("*") if p.is_file()}


def ingredients(n):
    return {"schema": 1, "kind": "compile", "version": 1, "params": {"n": n}, "inputs": {},
            "source": {}, "tools": {}}


def object_name(record, path):
    (entry,) = record.part(path)
    return f"objects/{entry.digest[:2]}/{entry.digest}"


def record_name(record):
    return f"records/{record.key[:2]}/{record.key}.json"


@pytest.fixture
def file_server():
    server = FileServer()
    yield server
    server.close()


@pytest.fixture(params=["s3", "folder", "http"])
def url(request, tmp_path):
    if request.param == "http":
        return request.getfixturevalue("file_server").url()
    return request.getfixturevalue("s3").url if request.param == "s3" else str(tmp_path / "shared")


@pytest.fixture
def machines(tmp_path, s3):
    def machine(name, **options):
        (tmp_path / name).mkdir()
        return Machine(tmp_path / name, s3.url, **options)
    return machine


@pytest.fixture
def one(machines):
    return machines("one")


@pytest.fixture
def two(machines):
    return machines("two")


def test_what_one_machine_made_another_has(url, tmp_path):
    one, two = Machine(tmp_path / "1", url), Machine(tmp_path / "2", url)

    record = one.put()
    assert one.remote.push(record)

    assert two.get() == TEXTS
    assert two.store.find(record.key) == record


def test_a_password_that_is_not_taken_is_told_once_and_not_shown(tmp_path, file_server, capsys):
    machine = Machine(tmp_path, file_server.url("me:wrong77"))

    assert machine.get(1) is None
    assert machine.get(2) is None
    assert not machine.remote.push(machine.put(n=3))

    said = capsys.readouterr().err
    assert "401" in said and "wrong77" not in said
    assert file_server.files == {}


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
    start.wait()
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
        process.join(60)

    assert [0, 0, 0] == [process.exitcode for process in pushes]
    assert all(two.get(n) == TEXTS for n in set(numbers))
    assert len(s3.names("objects")) == 2


def test_a_push_that_is_killed_leaves_no_record_and_is_finished_later(tmp_path, one, two, s3):
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(1)
    process = spawn.Process(target=push_from, args=(tmp_path / "m", s3.url, 1, start))
    s3.wire.answer_after = 0.3
    process.start()
    deadline = time.monotonic() + 60
    while not s3.wire.paths("PUT") and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.join()
    s3.wire.mend()

    assert -signal.SIGKILL == process.exitcode
    assert s3.names("records") == {}
    assert two.get() is None
    assert one.remote.push(one.put())
    two.restart()
    assert two.get() == TEXTS


LARGE_BYTES = 600 << 20


def measured(call, folder, url, peak):
    """Has a new process do something with a file of 600 MiB, and tells the memory it held."""
    machine = Machine(folder, url, timeout_s=60)
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
        process.join(300)

        assert process.exitcode == 0
        assert 0 < peak.value * 1024 < 400e6
    s3.clear()


# what is not as it should be there


def test_every_damaged_object_is_refused_and_mended_by_the_next_push(one, two, s3, capsys):
    record = one.put()
    one.remote.push(record)
    name = object_name(record, "Unet.mlmodelc/weights/weight.bin")
    good = s3.read(name)
    for bad in (good[:-1] + b"x", good[:100], b"", good + b"x", b"x" * len(good)):
        s3.write(name, bad)
        two.restart()

        assert two.get() is None
        assert not (two.store.root / name).exists()
    assert "compile:unet" in (said := capsys.readouterr().err) and "it is made here" in said
    assert two.remote.push(two.put())
    assert s3.read(name) == good


def test_an_object_that_is_gone_there_is_made_here(one, two, s3, capsys):
    record = one.put()
    one.remote.push(record)
    s3.remove(object_name(record, "Unet.mlmodelc/model.mil"))

    assert two.get() is None

    assert capsys.readouterr().err == (
        f"remote {s3.url}: compile:unet ({record.key[:8]}): Unet.mlmodelc/model.mil is not there; "
        "it is made here\n")


@pytest.mark.parametrize("spoil", [
    lambda text: text[:len(text) // 2], lambda text: b"", lambda text: b"<html>not found</html>",
    lambda text: text.replace(b"compile:unet", b"compile/unet"),
    lambda text: text.replace(b"Unet.mlmodelc/model.mil", b"../../../../etc/evil.mil"),
    lambda text: text.replace(b'"n":1', b'"n":2'),
    lambda text: text + b" " * (3 << 20),
], ids=["cut", "empty", "a page", "a step", "a path", "another key", "far too long"])
def test_a_damaged_record_is_not_used_and_the_next_push_mends_it(spoil, one, two, s3, capsys):
    record = one.put()
    one.remote.push(record)
    s3.write(record_name(record), spoil(s3.read(record_name(record))))

    assert two.get() is None
    assert two.store.find(record.key) is None
    assert capsys.readouterr().err.count("\n") == 1
    two.restart()
    two.remote.push(two.put())
    one.restart()
    assert one.remote.find(record.key, record.ingredients) == two.store.find(record.key)


def test_a_record_under_the_name_of_another_key_is_not_used(one, two, s3):
    first, second = one.put(), one.put({"other": "x"}, n=2)
    one.remote.push(first)
    one.remote.push(second)
    s3.write(record_name(first), s3.read(record_name(second)))

    assert two.get(1) is None
    assert two.get(2) == {"other": "x"}


def test_without_the_secret_nobody_can_plant_an_artifact(one, two, s3, monkeypatch, capsys):
    """The forger can write everywhere, and makes all digests right."""
    forger = one
    forged = forger.put({"evil": "evil"})
    forger.remote.push(forged)
    monkeypatch.setenv("SDBUILD_REMOTE_SECRET", "correct horse")
    two.restart()

    assert two.get() is None
    assert "not signed with this SDBUILD_REMOTE_SECRET" in capsys.readouterr().err
    two.remote.push(two.put())
    forger.restart()  # has the secret now
    assert forger.remote.find(forged.key, forged.ingredients).tree != forged.tree


def test_a_signed_record_cannot_be_made_to_mean_other_files(one, two, s3, monkeypatch):
    monkeypatch.setenv("SDBUILD_REMOTE_SECRET", "correct horse")
    one.restart()
    two.restart()
    first, second = one.put(), one.put({"other": "x"}, n=2)
    one.remote.push(first)
    one.remote.push(second)
    trees = [json.loads(s3.read(record_name(r)))["record"]["tree"] for r in (first, second)]
    found = json.loads(s3.read(record_name(first)))
    found["record"]["tree"] = trees[1]
    s3.write(record_name(first), json.dumps(found).encode())

    assert two.get(1) is None
    assert two.get(2) == {"other": "x"}


def test_files_are_held_against_sha256_since_quick_digests_can_be_forged(one, two, s3):
    """A file with the right quick digest and another SHA-256 stands for a forged collision."""
    record = one.put()
    one.remote.push(record)
    found = json.loads(s3.read(record_name(record)))
    for row in found["record"]["tree"]:
        row[3] = hashlib.sha256(b"what was signed").hexdigest()
    s3.write(record_name(record), json.dumps(found).encode())

    assert two.get() is None


def test_a_tree_that_promises_more_than_the_disk_holds_is_not_begun(one, two, s3, capsys):
    record = one.put()
    one.remote.push(record)
    found = json.loads(s3.read(record_name(record)))
    found["record"]["tree"][0][2] = 1 << 40
    s3.write(record_name(record), json.dumps(found).encode())
    s3.wire.forget()

    assert two.get() is None
    assert "more than is free here" in capsys.readouterr().err
    assert not any("objects" in path for path in s3.wire.paths())


# what fails on the way


def test_a_server_that_is_not_there_is_told_once(tmp_path, s3, monkeypatch, capsys):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    machine = Machine(tmp_path, s3.url)

    assert machine.get(1) is None
    assert machine.get(2) is None
    assert not machine.remote.push(machine.put())

    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.endswith("going on without it\n")


def test_a_bucket_that_is_not_there_is_told_once(tmp_path, s3, capsys):
    machine = Machine(tmp_path, "s3://no-such-bucket/x")

    assert machine.get() is None
    assert not machine.remote.push(machine.put(n=1))
    assert not machine.remote.push(machine.put(n=2))

    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "bucket does not exist" in said


@pytest.mark.parametrize("cut_after", [0, 300, 5000])
def test_a_connection_that_is_cut_is_tried_again(cut_after, one, two, s3):
    one.remote.push(one.put())
    s3.wire.cut_after, s3.wire.cuts = cut_after, 1

    assert two.get() == TEXTS
    assert s3.wire.cuts == 0


def test_connections_that_are_always_cut_leave_nothing_behind(one, two, s3, capsys):
    record = one.put()
    one.remote.push(record)
    two.remote.find(record.key, record.ingredients)
    s3.wire.cut_after, s3.wire.cuts = 300, 1000

    assert two.get() is None

    assert capsys.readouterr().err.endswith("going on without it\n")
    assert list(two.store.objects()) == []
    assert list((two.store.root / "work").iterdir()) == []
    assert verify(two.store).is_whole


def test_a_push_that_is_cut_leaves_no_record(one, two, s3):
    s3.wire.answers = {"PUT": b"HTTP/1.1 200 OK\r\n"}  # and then nothing

    assert not one.remote.push(one.put())

    assert s3.names() == {}
    s3.wire.mend()
    one.restart()
    assert one.remote.push(one.put())
    assert two.get() == TEXTS


def test_a_server_that_is_too_slow_is_given_up_in_time(one, machines, s3, capsys):
    one.remote.push(one.put())
    three = machines("three", timeout_s=0.5)
    s3.wire.answer_after = 3
    started = time.monotonic()

    assert three.get() is None
    assert three.get(2) is None

    assert time.monotonic() - started < 6
    assert capsys.readouterr().err.count("\n") == 1


def test_who_may_not_write_still_reads(one, two, s3, capsys):
    one.remote.push(one.put())
    s3.wire.answers = {"PUT": DENIED}

    assert two.get() == TEXTS
    assert not two.remote.push(two.put({"a": "a"}, n=2))
    assert not two.remote.push(two.put({"b": "b"}, n=3))

    assert capsys.readouterr().err == (
        f"remote {s3.url}: Access is denied.; what is made here is not given away\n")
    assert s3.wire.paths("PUT").count(s3.wire.paths("PUT")[-1]) == 1


def test_who_may_not_read_is_told_once_and_builds(one, two, s3, capsys):
    s3.wire.answers = {"GET": DENIED}

    assert two.get(1) is None
    assert two.get(2) is None

    assert capsys.readouterr().err.count("\n") == 1


def test_a_file_that_rotted_here_is_not_given_away(one, two, s3, capsys):
    record = one.put()
    path = one.store.object(record.part("Unet.mlmodelc/model.mil")[0].digest)
    path.chmod(0o644)
    path.write_text("rot")

    assert not one.remote.push(record)

    assert "model.mil is damaged here" in capsys.readouterr().err
    assert s3.names("records") == {}


def test_credentials_are_in_no_record_and_in_no_message(one, two, s3, monkeypatch, capsys):
    monkeypatch.setenv("SDBUILD_REMOTE_SECRET", "correct horse")
    one.restart()
    record = one.put()
    one.remote.push(record)
    s3.wire.answers = {"GET": DENIED}
    two.get()

    texts = [s3.read(record_name(record)).decode(), capsys.readouterr().err,
             *(p.read_text() for p in one.store.root.rglob("*.json"))]
    for secret in ("hush-hush-very-secret", "AKIATESTING", "correct horse"):
        assert not any(secret in text for text in texts)


def test_a_tree_of_many_copies_fetches_each_file_once(one, two, s3):
    texts = {f"copy-{n}": "the same" for n in range(5)}
    record = one.put(texts)
    one.remote.push(record)
    s3.wire.forget()

    assert two.get() == texts
    assert sum("/objects/" in path for path in s3.wire.paths()) == 1
    assert isinstance(record.tree[0], Entry)
