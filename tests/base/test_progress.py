"""Reports of how far work is, within a process and through a pipe."""

import json
import os

import pytest

from sdbuild.base.progress import Channel, Progress, each, listening, report, sender


def reported(work):
    found = []
    with listening(found.append):
        work()
    return found


def test_a_loop_reports_the_number_of_each_item():
    found = reported(lambda: list(each("abc", "tensors")))
    assert found == [Progress(n, 3, "tensors") for n in (1, 2, 3)]


def test_a_loop_over_what_has_no_length_reports_the_total_that_is_given():
    found = reported(lambda: list(each(iter("ab"), "passes", total=2)))
    assert found[-1] == Progress(2, 2, "passes")


def test_nobody_hears_what_is_reported_after_listening():
    found = reported(lambda: report(1, 2, "bytes"))
    report(2, 2, "bytes")
    assert found == [Progress(1, 2, "bytes")]


def test_the_other_end_of_a_pipe_reads_the_last_report():
    with Channel() as channel:
        assert channel.read() is None
        with listening(sender(channel.writer)):
            for _ in each(range(1000), "tensors"):
                pass
        assert channel.read() == channel.read() == Progress(1000, 1000, "tensors")


def test_a_pipe_that_nobody_reads_holds_up_no_work():
    with Channel() as channel:
        send = sender(channel.writer)
        for number in range(1, 20_000):  # each is the last of its own, so that none is left out
            send(Progress(number, number, "tensors"))
        assert channel.read().unit == "tensors"


def test_reports_to_a_process_that_has_gone_are_dropped():
    with Channel() as channel:
        other = os.dup(channel.writer)
        send = sender(other)
    send(Progress(1, 1, "bytes"))
    os.close(other)


GOOD = {"done": 1, "total": 2, "unit": "tensors"}


@pytest.mark.parametrize("line", [
    b"", b"1", b"[]", b"nothing", b"\xff\xfe", b'{"done": 1}', b"{" * 5000, b"9" * 10_000,
    *(json.dumps(GOOD | bad).encode() for bad in (
        {"done": 3}, {"done": -1}, {"total": 1e300}, {"total": 10**30}, {"total": True},
        {"unit": "\x1b[2J"}, {"unit": ["tensors"]}, {"unit": "x" * 500},
        {"unit": "tensors", "pad": "x" * 500},
    )),
], ids=lambda line: str(line[:40]))
def test_a_line_that_is_no_report_is_ignored(line):
    with Channel() as channel:
        good = json.dumps(GOOD).encode()
        os.write(channel.writer, good + b"\n" + line + b"\n")
        assert channel.read() == Progress(1, 2, "tensors")
        os.write(channel.writer, line * 3)  # without an end
        assert channel.read() == Progress(1, 2, "tensors")


def test_a_report_that_comes_in_two_parts_is_read_whole():
    with Channel() as channel:
        line = json.dumps(GOOD).encode() + b"\n"
        os.write(channel.writer, line[:9])
        assert channel.read() is None
        os.write(channel.writer, line[9:])
        assert channel.read() == Progress(1, 2, "tensors")
