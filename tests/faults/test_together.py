"""Several builds at once in one store, some of them killed: no lost record, no work done twice."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults import reader
from tests.faults.scenes import SCENES
from tests.faults.walk import Walk
from tests.faults.watch import KILL, Watcher

BITS = (2, 3, 2, 4, 3, 2)
"""Of each build: they share downloads, some the rest as well."""
_PATIENCE_S = 1200


@pytest.fixture(scope="module")
def watchers(stages):
    found = [Watcher(stages[0].world) for _ in BITS]
    yield found
    for watcher in found:
        watcher.__exit__()


@pytest.fixture(scope="module")
def wanted(stages):
    """The bundle of each number of bits, built alone."""
    stage, found = stages[0], {}
    stage.reset(SCENES["a first build"])
    for bits in set(BITS):
        assert stage.run(("build", {"nbits": bits})).result == {}
        found[bits] = reader.tree(stage.world / "out" / "mine")
    return found


def killing(at):
    """Kills at so many operations; never, if None."""
    seen = []

    def decide(call):
        seen.append(call)
        return KILL if len(seen) == at else None
    return decide if at else None


def build_at_once(stage, watchers, kills, *more):
    """All builds at once, and other works beside them; what came of each."""
    works = [*(("build", {"nbits": bits, "place": f"bundle-{number}"})
               for number, bits in enumerate(BITS)), *more]
    with ThreadPoolExecutor(len(works)) as pool:
        running = [
            pool.submit(stage.run, work, killing(at), watcher)
            for work, at, watcher in zip(works, [*kills, *[None] * len(more)],
                                         [*watchers, stage.watcher], strict=False)
        ]
        end = time.monotonic() + _PATIENCE_S
        return [each.result(timeout=end - time.monotonic()) for each in running]


def check_bundles(stage, wanted, runs):
    for number, (bits, run) in enumerate(zip(BITS, runs, strict=False)):
        found = reader.tree(stage.world / "out" / f"bundle-{number}")
        if run.status == -9:
            assert found in (None, wanted[bits])
        else:
            assert (run.result, found) == ({}, wanted[bits]), run.printed


def check_round(stage, watchers, wanted, kills):
    """One round of builds, some of them killed, and one more of all of them in peace; how many were
    killed, and the steps that ran again."""
    stage.reset(SCENES["a first build"])

    runs = build_at_once(stage, watchers, kills)

    assert reader.read(stage.world / "cache").wrong == ()
    check_bundles(stage, wanted, runs)
    killed = {run.pid for run in runs if run.status == -9}
    started = stage.started()
    last = {key: place for place, (_, key) in enumerate(started)}
    assert all(pid in killed or last[key] == place for place, (pid, key) in enumerate(started))
    whole = reader.read(stage.world / "cache").whole

    again = build_at_once(stage, watchers, [None] * len(BITS))

    check_bundles(stage, wanted, again)
    ran = stage.ran()
    assert len(ran) == len(set(ran))
    assert not whole & set(ran)
    left = reader.read(stage.world / "cache").left
    assert [name for name in left if name.startswith("work/")] == []
    return len(killed), len(ran)


def test_builds_at_once_do_no_work_twice(stage, watchers, wanted):
    assert check_round(stage, watchers, wanted, [None] * len(BITS))[0] == 0


def test_builds_at_once_go_on_where_others_were_killed(stage, watchers, wanted):
    assert check_round(stage, watchers, wanted, [70, None, 230, None, 410, None])[0] > 0


def test_many_rounds_of_builds_that_are_killed_anywhere(stage, watchers, wanted, every, counted):
    chance, killed, reruns = random.Random(5), 0, 0
    rounds = 12 if every else 4
    for turn in range(3 * rounds):  # a build that waits for another comes to few operations
        if turn >= rounds and killed > rounds / 2:
            break
        kills = [chance.choice((None, chance.randrange(1, 400))) for _ in BITS]
        found = check_round(stage, watchers, wanted, kills)
        killed, reruns = killed + found[0], reruns + found[1]

    assert killed > rounds / 2
    counted.add("together", Walk(points=killed, reruns=reruns))


def test_a_collector_among_builds_takes_nothing_that_they_need(stage, watchers, wanted):
    stage.reset(SCENES["a first build"])

    *runs, collected = build_at_once(stage, watchers, [None, 150, None, None, 300, None],
                                     ("gc", {}))

    assert collected.result == {}
    check_bundles(stage, wanted, runs)
    assert reader.read(stage.world / "cache").wrong == ()
