"""The power fails: whatever order the disk wrote in, nothing that was finished is lost."""

import errno
from pathlib import Path

import pytest

from tests.faults import walk
from tests.faults.power import Disk
from tests.faults.scenes import SCENES


def states(stage, scene, decide, forgets):
    """The states that the disk may be in after the power failed, each once: (what it is, the keys
    of the records that were finished before, what `Disk.lay_out` takes for it).

    Args:
        decide: returns the error with which the file system refuses a call, or None.
        forgets: operations that the disk forgets.
    """
    stage.undisturbed(scene)
    stage.reset(scene)
    disk = Disk(stage.world)
    calls = [call for call in stage.run(scene.act, decide).calls
             if decide(call) is None and not forgets(call)]
    seen, finished = set(), Finished(stage.undisturbed(scene).start.store.made)
    for number, call in enumerate([*calls, None]):
        # Until something is synced or renamed, less is on the disk of what may be there then.
        if call is None or call.name in ("fsync", "rename", "unlink"):
            for what, kept, contents in disk.after_power_loss():
                state = disk.what_matters(kept, contents)
                if state not in seen:
                    seen.add(state)
                    yield (f"before {number}, {call}: {what}", frozenset(finished.keys),
                           (disk, kept, contents))
        if call is not None:
            disk.apply(call)
            finished.note(call)


class Finished:
    """The keys of the records that last, as calls tell: renamed to their place, and that synced."""

    def __init__(self, keys):
        self.keys = set(keys)
        self._renamed = set()

    def note(self, call):
        path = Path(call.paths[-1])
        if path.parent.parent.name == "records":
            self._renamed |= {path} if call.name == "rename" else set()
            self.keys -= {path.stem} if call.name == "unlink" else set()
        elif call.name == "fsync":
            self.keys |= {each.stem for each in self._renamed if each.parent == path}
            self._renamed = {each for each in self._renamed if each.parent != path}


def lost(stage, scene, every, decide=lambda call: None, forgets=lambda call: False):
    """Returns the problems in a sample of those states, one in so many."""
    found = walk.Walk()
    for what, finished, (disk, kept, contents) in states(stage, scene, decide, forgets):
        found.places += 1
        if found.places % every != 1 % every:
            continue
        disk.lay_out(kept, contents, stage.world)
        found.points += 1
        try:
            assert finished <= stage.look().store.made.keys()
            found.reruns += stage.check(scene)
        except AssertionError as error:
            found.wrong.append(f"{what}: {error}")
    return found


def copying(call):
    """A file system without links, or another one than the store's."""
    return errno.EXDEV if call.name == "link" and "/out/" in call.paths[1] else None


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("how", ["links", "copies"])
def test_nothing_is_lost_in_any_order_of_writes(stage, name, how, every, counted):
    refused = copying if how == "copies" else lambda call: None
    found = lost(stage, SCENES[name], every or 37, refused)

    counted.add(how, found)
    assert found.wrong == []
    assert found.points


def test_a_new_store_is_there_for_good_before_anything_in_it_is_finished(stage):
    calls = stage.undisturbed(SCENES["a first build"]).calls
    seen = [(call.name, call.paths[-1].removeprefix(str(stage.world))) for call in calls]

    records = [place for place, (name, path) in enumerate(seen)
               if name == "rename" and path.startswith("/cache/records/")]

    assert seen.index(("mkdir", "/cache")) < seen.index(("fsync", "")) < records[0]


@pytest.mark.parametrize("part", ["/cache/", "/out/"])
def test_a_disk_that_is_not_told_to_sync_loses_something(stage, part):
    """Else the model could not tell a good order of writes from a bad one."""
    found = lost(stage, SCENES["replacing an older bundle"], every=7,
                 decide=copying,
                 forgets=lambda call: call.name == "fsync" and part in call.paths[0])

    assert found.wrong
