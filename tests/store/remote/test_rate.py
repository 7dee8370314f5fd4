"""The rate of transfers: a guess by the kind of place, then what was measured."""

import types

import pytest

from sdbuild.store.remote.rate import Rate, guessed
from sdbuild.store.remote.transport import Transport

MB = 1_000_000


@pytest.mark.parametrize(("url", "bytes_s"), [
    (None, 125 * MB), ("s3://bucket/x", 125 * MB), ("sftp://host/x", 125 * MB),
    ("/mnt/shared", 1000 * MB), ("shared", 1000 * MB), ("file:///mnt/shared", 1000 * MB),
])
def test_a_server_is_taken_for_one_at_a_gigabit_and_a_folder_for_a_disk(url, bytes_s):
    assert guessed(url).bytes_s == pytest.approx(bytes_s)


def test_each_transfer_counts_twice_as_much_as_the_one_before():
    rate = Rate(sent_bytes=100 * MB, seconds=1.0)

    rate = rate.after(50 * MB, 5.0)
    assert rate.bytes_s == pytest.approx((50 + 50) * MB / (0.5 + 5))
    rate = rate.after(100 * MB, 1.0)
    assert rate.bytes_s == pytest.approx((25 + 25 + 100) * MB / (0.25 + 2.5 + 1))


def test_a_place_that_is_slower_than_guessed_is_known_after_one_large_file():
    assert guessed("/mnt/slow").after(1000 * MB, 100.0).bytes_s == pytest.approx(10 * MB, rel=0.02)


def test_a_small_file_tells_nothing():
    rate = guessed("s3://bucket/x")

    assert rate.after(1000, 0.5) == rate


def test_what_was_sent_to_a_place_is_known_to_all_that_open_it_in_this_process(
    tmp_path, monkeypatch
):
    clock = iter(range(0, 1000, 4))
    url, other = str(tmp_path / "there"), str(tmp_path / "other")
    (tmp_path / "file").write_bytes(bytes(16 << 20))
    monkeypatch.setattr("sdbuild.store.remote.transport.time",
                        types.SimpleNamespace(monotonic=lambda: next(clock)))

    Transport(url).write(tmp_path / "file", "objects/ab/abcd")

    assert Transport(url).rate.bytes_s == pytest.approx((24 << 20) / 4, rel=0.01)
    assert Transport(other).rate == guessed(other)
