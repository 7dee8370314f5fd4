"""A shared store that is away, slow, cut or closed: builds go on without it."""

import socket
import struct
import threading

import pytest

from sdbuild.store import Entry
from tests.s3_server import DENIED
from tests.store.remote.machines import TEXTS, Machine, record_name
from tests.waiting import wait_for
from tests.wire import Wire


def test_a_server_that_is_not_there_is_reported_once(tmp_path, s3, monkeypatch, capsys):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    machine = Machine(tmp_path, s3.url)

    assert machine.get(1) is None
    assert machine.get(2) is None
    assert not machine.remote.push(machine.put())

    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.endswith("going on without it\n")


def test_a_bucket_that_is_not_there_is_reported_once(tmp_path, s3, capsys):
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


def test_a_push_that_is_cut_leaves_no_record(one, two, s3):
    s3.wire.answers = {"PUT": b"HTTP/1.1 200 OK\r\n"}  # and then nothing

    assert not one.remote.push(one.put())

    assert s3.names() == {}
    s3.wire.mend()
    one.restart()
    assert one.remote.push(one.put())
    assert two.get() == TEXTS


@pytest.mark.parametrize("is_there", [True, False], ids=["a server", "no server"])
def test_connections_that_are_reset_leave_no_exception_in_the_wire(is_there, monkeypatch):
    """Of the tests themselves: pytest would call it an error of whichever test runs then."""
    raised, before = [], threading.active_count()
    monkeypatch.setattr(threading, "excepthook", raised.append)
    server = socket.create_server(("127.0.0.1", 0))
    wire = Wire(server.getsockname()[1])
    if not is_there:
        server.close()
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", wire.port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with socket.create_connection(("127.0.0.1", wire.port)) as last:
        last.shutdown(socket.SHUT_WR)
        assert last.recv(1) == b""  # so those before it were accepted
    wire.close()
    server.close()

    wait_for(lambda: threading.active_count() <= before)
    assert raised == []


def test_a_server_that_never_answers_is_asked_for_nothing_else(one, machines, s3, capsys):
    one.remote.push(one.put())
    three = machines("three", timeout_s=0.5)
    s3.wire.forget()
    s3.wire.holds = {"GET", "HEAD"}

    assert three.get() is None
    assert three.get(2) is None

    assert len(set(s3.wire.paths())) <= 1  # none was sent yet on a busy machine
    assert capsys.readouterr().err.count("\n") == 1


def test_who_may_not_read_is_reported_once_and_builds(one, two, s3, capsys):
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
