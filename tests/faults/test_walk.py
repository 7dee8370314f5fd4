"""A small build is disturbed at every file operation: nothing is lost, and it goes on after."""

import errno
from concurrent.futures import ThreadPoolExecutor

import pytest
import reader
import walk
from scenes import SCENES

EACH = pytest.mark.parametrize("name", SCENES)


def disturbed(how, stages, name, every):
    """The points of a walk, shared out among the stages."""
    with ThreadPoolExecutor(len(stages)) as pool:
        found = pool.map(lambda i: how(stages[i], SCENES[name], every * len(stages), every * i),
                         range(len(stages)))
        both = sum(found, start=walk.Walk())
    both.places //= len(stages)  # each saw all of them
    return both


@EACH
def test_a_kill_at_some_operations_loses_nothing(stage, name):
    found = walk.killed(stage, SCENES[name], every=37, first=5)

    assert found.wrong == []
    assert found.points


@EACH
def test_operations_that_fail_are_told_and_the_next_build_goes_on(stage, name):
    found = walk.failed(stage, SCENES[name], every=67, first=1)

    assert found.wrong == []
    assert found.points


@pytest.mark.slow
@EACH
@pytest.mark.parametrize("how", [walk.killed, walk.failed, walk.filled])
def test_nothing_is_lost_at_any_operation(stages, how, name, every, counted):
    found = disturbed(how, stages, name, every)

    counted.add(how.__name__, found)
    assert found.wrong == []
    assert found.points


def test_the_reader_of_these_tests_sees_what_is_wrong(stage):
    """Of a store whose files were damaged, cut and taken away behind its back."""
    scene = SCENES["gc"]
    stage.reset(scene)
    damaged, taken, *_ = sorted((stage.world / "cache" / "objects").glob("*/*"))
    damaged.chmod(0o644)
    damaged.write_bytes(b"other")
    taken.unlink()

    found = stage.look().store

    assert any(damaged.name in line for line in found.wrong)
    assert any("lacks" in line for line in found.wrong)
    assert found.whole < found.made.keys()


def test_the_watch_sees_every_operation_of_a_process_and_its_children(stage):
    scene = SCENES["a first build"]
    stage.reset(scene)

    calls = stage.run(scene.act, lambda call: None).calls

    assert {"open", "read", "write", "fsync", "rename", "link", "unlink", "mkdir", "rmdir", "chmod",
            "utime", "truncate", "flock", "ioctl"} <= {call.name for call in calls}
    assert len({call.pid for call in calls}) >= 7  # the build, and a process for each step
    assert b'"tree"' in b"".join(c.content for c in calls if "/records/" in c.paths[0])


def test_a_quota_that_is_used_up_is_told_though_the_log_is_under_it(stage):
    def decide(call):
        decide.is_used_up |= "/out/" in call.paths[-1]
        return errno.EDQUOT if decide.is_used_up and call.name in walk.FULL else None

    decide.is_used_up = False
    stage.reset(SCENES["a first build"])

    told = stage.run(("build", {}), decide).result

    assert "quota exceeded" in told["error"]
    assert "python -m sdbuild gc" in told["hint"]


@pytest.mark.parametrize("part", ["/cache/roots/", "/out/mine/manifest.json"])
def test_what_a_bundle_holds_does_not_go_where_it_cannot_be_seen_just_now(stage, part):
    stage.reset(SCENES["gc"])

    told = stage.run(("gc", {}), lambda call: (
        errno.EMFILE if call.name == "read" and part in call.paths[0] else None)).result

    assert "Too many open files" in told["error"]
    assert set(reader.tree(stage.world / "out" / "mine").values()) <= {
        path.name for path in (stage.world / "cache").glob("objects/*/*")}


def test_an_operation_that_is_made_to_fail_fails(stage):
    stage.reset(SCENES["a first build"])

    run = stage.run(("build", {}), lambda call: errno.EROFS if call.name == "mkdir" else None)

    assert "Read-only file system" in run.result["error"]
    assert not (stage.world / "cache").exists()
