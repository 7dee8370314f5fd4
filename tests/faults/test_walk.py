"""A small build is disturbed at every file operation: nothing is lost, and it goes on after."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults import reader, walk
from tests.faults.scenes import BUILD, SCENES
from tests.faults.watch import KILL, RENAME_EXCHANGE


def disturbed(fault, stages, name, every):
    """A walk whose points are shared out among the stages."""
    count = len(stages)
    with ThreadPoolExecutor(count) as pool:
        found = pool.map(lambda i: walk.walked(fault, stages[i], SCENES[name], every, i, count),
                         range(count))
        both = sum(found, start=walk.Walk())
    both.places //= count  # each saw all of them
    return both


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("fault", walk.FAULTS)
def test_nothing_is_lost_at_any_operation(stages, fault, name, every, counted):
    found = disturbed(walk.FAULTS[fault], stages, name, every)

    counted.add(fault, found)
    assert found.wrong == []
    assert found.points


@pytest.mark.parametrize(("name", "is_stored"), [
    ("a first build", True), ("a virtual package", False)])
def test_convert_writes_its_package_unless_it_is_virtual(stage, name, is_stored):
    calls = stage.undisturbed(SCENES[name]).calls

    written = {Path(path).name for call in calls if call.name == "write"
               for path in call.paths if "/out/" in path and "mlmodelc" not in path}
    assert ("package" in written) == is_stored


@pytest.mark.parametrize("fault", walk.FAULTS.values(), ids=walk.FAULTS)
def test_each_kind_of_operation_is_tried_in_some_scene_though_not_all_are_walked(stage, fault):
    there, tried = set(), set()
    for scene in SCENES.values():
        points = list(fault.points(stage.undisturbed(scene).calls, stage.watcher.root))
        there |= {kind for _, _, kind in points}
        tried |= {kind for _, _, kind in walk.chosen(points, scene, None)}

    assert tried == there


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


def test_a_quota_that_is_used_up_is_reported_though_the_log_is_under_it(stage):
    def decide(call):
        decide.is_used_up |= "/out/" in call.paths[-1]
        return errno.EDQUOT if decide.is_used_up and call.name in walk.FULL else None

    decide.is_used_up = False
    stage.reset(SCENES["a first build"])

    result = stage.run(("build", {}), decide).result

    assert "quota exceeded" in result["error"]
    assert "sdbuild gc" in result["hint"]


def unreadable(path, number):
    """Has a file or folder, and all in it, not be opened until it is removed or replaced."""
    def decide(call):
        decide.is_gone |= call.name in ("unlink", "rename") and call.paths[-1] == str(path)
        is_there = call.paths[0] == str(path) or call.paths[0].startswith(f"{path}/")
        return number if call.name == "read" and is_there and not decide.is_gone else None

    decide.is_gone = False
    return decide


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES])
@pytest.mark.parametrize("part", ["cache/roots", "cache/records", "out/mine"])
def test_what_a_bundle_holds_does_not_go_where_it_cannot_be_seen_just_now(stage, part, number):
    stage.reset(SCENES["gc"])

    result = stage.run(("gc", {}), unreadable(stage.world / part, number)).result

    assert os.strerror(number) in result["error"] if part.startswith("cache/") else result == {}
    assert set(reader.tree(stage.world / "out" / "mine").values()) <= {
        path.name for path in (stage.world / "cache").glob("objects/*/*")}


def test_a_bundle_is_kept_though_its_build_is_killed_in_the_moment_that_it_comes(stage):
    scene = SCENES["replacing an older bundle"]
    stage.undisturbed(scene)
    stage.reset(scene)

    def decide(call):
        answer = KILL if decide.has_come else None
        decide.has_come |= call.name == "rename" and bool(call.flags & RENAME_EXCHANGE)
        return answer

    decide.has_come = False
    assert stage.run(scene.act, decide).status == -9

    assert stage.look().bundle == stage.undisturbed(scene).done.bundle
    stage.check(scene)


def test_a_bundle_whose_manifest_cannot_be_read_just_now_is_reported_with_a_hint(stage):
    stage.reset(SCENES["relink"])
    path = stage.world / "out" / "mine" / "manifest.json"

    result = stage.run(("relink", {}), unreadable(path, errno.EMFILE)).result

    assert result["error"] == f"{path}: cannot be read: Too many open files"
    assert result["hint"]


@pytest.fixture
def written_to(stage):
    """A file of the store that a built bundle holds and that has another time than the store's, so
    that builds read it."""
    stage.reset(SCENES["relink"])
    path = stage.world / "cache" / "objects" / "??" / reader.digest(
        stage.world / "out" / "mine" / "Unet.mlmodelc" / "package")
    (path,) = stage.world.glob(str(path.relative_to(stage.world)))
    os.utime(path)
    return path


@pytest.mark.parametrize("number", [
    errno.EMFILE, errno.ENFILE, errno.EACCES, errno.ENOMEM, errno.ESTALE])
def test_a_file_that_cannot_be_read_just_now_ends_the_build_and_is_not_made_again(
    stage, written_to, number,
):
    result = stage.run(BUILD, unreadable(written_to, number)).result

    assert result["error"] == f"{written_to}: {os.strerror(number)}"
    assert result["hint"]
    assert stage.run(BUILD).result == {}
    assert stage.ran() == []


def test_a_file_that_the_disk_reports_as_unreadable_is_made_anew(stage, written_to):
    assert stage.run(BUILD, unreadable(written_to, errno.EIO)).result == {}

    ran = stage.ran()
    assert len(ran) == len(set(ran)) == 3  # convert, compile and bundle, which all held it
    assert reader.digest(written_to) == written_to.name
    assert stage.look().store.wrong == ()


def test_a_read_that_a_signal_interrupts_goes_on(stage, written_to):
    interrupted = []

    def decide(call):
        if call.name == "read" and call.paths[0] == str(written_to) and not interrupted:
            interrupted.append(call)
            return errno.EINTR
        return None

    assert stage.run(BUILD, decide).result == {}

    assert interrupted
    assert stage.ran() == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO])
def test_an_artifact_of_which_a_folder_cannot_be_listed_is_not_taken_in(stage, number):
    stage.reset(SCENES["a first build"])

    result = stage.run(BUILD, lambda call: (
        number if call.name == "read" and call.paths[0].endswith("/out/sub") else None)).result

    assert os.strerror(number) in result["error"]
    assert stage.look().store.made == {}


def test_an_operation_that_is_made_to_fail_fails(stage):
    stage.reset(SCENES["a first build"])

    run = stage.run(("build", {}), lambda call: errno.EROFS if call.name == "mkdir" else None)

    assert "Read-only file system" in run.result["error"]
    assert not (stage.world / "cache").exists()
