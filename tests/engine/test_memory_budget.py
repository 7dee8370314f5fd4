"""Memory as a promise: what is refused, what waits, and that a kill frees what was held."""

import subprocess
import sys
import threading

import pytest

from sdbuild.base.errors import OutOfMemory
from sdbuild.base.filenames import contents
from sdbuild.engine.cost import Cost
from sdbuild.engine.memory_budget import Ram, refuse_too_large
from sdbuild.engine.plan import plan
from sdbuild.recipe.recipe import load
from sdbuild.store import Store

HOLD = """
import sys, time
from pathlib import Path
from sdbuild.engine.cost import Cost
from sdbuild.engine.memory_budget import Ram
from sdbuild.store import Store
cost = Cost(seconds=None, peak_bytes=600, is_measured=True, least_bytes=600, most_bytes=600)
with Ram(Store(Path(sys.argv[1])), 1000).reserved("lower:unet", cost):
    print("held", flush=True)
    sys.stdin.read()
"""


def cost(least, most=None, is_measured=True):
    return Cost(seconds=None, peak_bytes=most or least, is_measured=is_measured,
                least_bytes=least, most_bytes=most or least)


@pytest.fixture
def ram(tmp_path):
    return Ram(Store(tmp_path), 1000)


@pytest.fixture
def other(tmp_path):
    """Another process that holds 600 bytes for lower:unet."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def reserve_later(ram, wanted):
    """Reserves in a thread; the thread, and an event for when it is held."""
    held = threading.Event()

    def run():
        with ram.reserved("lower:text_encoder", wanted):
            held.set()
    thread = threading.Thread(target=run)
    thread.start()
    return thread, held


def test_a_step_that_would_be_alone_gets_all_that_it_can_use(ram):
    with ram.reserved("lower:unet", cost(300, 700)) as count:
        assert count == 700


def test_no_step_gets_more_than_the_limit_or_less_than_it_needs(ram):
    with ram.reserved("parity:unet", cost(300, 5000)) as count:
        assert count == 1000
    with ram.reserved("parity:unet", cost(1100, 5000)) as count:
        assert count == 1100


def test_steps_that_fit_together_run_together(ram, other):
    with ram.reserved("palettize:unet", cost(100, 900)) as count:
        assert count == 400


@pytest.mark.parametrize("how", ["ends", "killed"])
def test_a_step_waits_for_what_another_process_holds_and_says_for_whom(ram, other, how, capsys):
    thread, held = reserve_later(ram, cost(500))
    assert not held.wait(0.5)

    other.kill() if how == "killed" else other.stdin.close()

    assert held.wait(5)
    thread.join()
    assert capsys.readouterr() == (  # nothing on standard output, where JSON may go
        "", f"   lower:text_encoder waits for 500 B of the 1.0 kB of memory, "
            f"reserved by lower:unet (600 B, process {other.pid})\n",
    )


def test_nothing_is_left_of_a_reservation(ram, tmp_path, other):
    with ram.reserved("palettize:unet", cost(100)):
        pass
    other.kill()
    other.wait()
    with ram.reserved("palettize:unet", cost(1000)) as count:
        assert count == 1000

    assert contents(tmp_path / "locks" / "ram") == []


def test_many_that_reserve_at_once_never_hold_more_than_the_limit(ram):
    """Eight threads, each 400 of 1000 bytes: two at a time, who meet, and all get through."""
    now, most, done = [0], [0], []
    lock, pair = threading.Lock(), threading.Barrier(2)

    def run(number):
        with ram.reserved(f"step{number}", cost(400)):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            pair.wait()
            with lock:
                now[0] -= 1
                done.append(number)
    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(done) == list(range(8))
    assert most[0] == 2


@pytest.mark.parametrize("needed, limit, is_measured, fits", [
    (1000, 1000, True, True), (1001, 1000, True, False),
    (1200, 1000, False, True), (1300, 1000, False, False),
])
def test_a_measured_step_is_refused_above_the_limit_and_an_estimated_one_well_above_it(
    needed, limit, is_measured, fits,
):
    step = plan(load({})).steps["lower:unet"]

    if fits:
        refuse_too_large(step, cost(needed, is_measured=is_measured), limit)
    else:
        with pytest.raises(OutOfMemory, match=r"^lower:unet (probably )?holds 1\.\d kB of memory"):
            refuse_too_large(step, cost(needed, is_measured=is_measured), limit)


def test_a_refusal_says_what_was_measured_and_what_helps():
    step = plan(load({"lower": "direct"})).steps["convert:unet"]

    with pytest.raises(OutOfMemory) as caught:
        refuse_too_large(step, cost(6_400_000_000), 4_000_000_000)

    assert str(caught.value) == (
        "convert:unet holds 6.4 GB of memory (as measured before), more than the 4.0 GB that it "
        "may\n\nhint: lower=once needs a fraction of it; close other programs, and allow what the "
        "machine has with ram=SIZE"
    )
