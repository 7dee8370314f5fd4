"""The system is asked to start on a large file's pages while it is written."""

import sys

import pytest

from sdbuild.base import writeback
from sdbuild.base.writeback import Writeback

PART = 24 << 20


def test_every_byte_is_started_on_once_but_for_the_last_few(tmp_path, monkeypatch):
    asked = []

    def started(handle, offset, size, flags):
        asked.append((offset.value, offset.value + size.value))
        assert (tmp_path / "file").stat().st_size >= offset.value + size.value

    monkeypatch.setattr(writeback, "_SYNC_RANGE", started)
    with (tmp_path / "file").open("wb") as file:
        noted = Writeback(file)
        for _ in range(7):
            file.write(bytes(PART))
            noted.advance()

    starts, ends = zip(*asked, strict=True)
    assert (0, *ends[:-1]) == starts
    assert 7 * PART - ends[-1] < 32 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has the call")
def test_the_call_is_the_systems_own(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        file.write(b"some bytes")
        file.flush()

        assert writeback._SYNC_RANGE(file.fileno(), 0, 4, writeback._START) == 0
        assert writeback._SYNC_RANGE(-1, 0, 4, writeback._START) == -1


def test_a_system_without_it_writes_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(writeback, "_SYNC_RANGE", None)
    with (tmp_path / "file").open("wb") as file:
        file.write(bytes(2 * PART))
        Writeback(file).advance()

    assert (tmp_path / "file").stat().st_size == 2 * PART
