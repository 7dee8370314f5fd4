"""A shared store that was damaged, or lies: nothing wrong is taken from it."""

import hashlib
import json

import pytest

from tests.store.remote.machines import object_name, record_name


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
