"""Walks every file operation of a scene and disturbs it there."""

import errno
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.faults.scenes import SCENES
from tests.faults.watch import HALF, KILL, Call

NEVER = Call(name="never reached", paths=(), pid=0)

FULL = ("open", "write", "mkdir", "rename", "link", "copy", "symlink")
"""Operations that need space on the disk."""

ERRORS = {
    "read": (errno.EIO, errno.EMFILE, errno.EACCES),
    "open": (errno.ENOSPC, errno.EACCES, errno.EMFILE),
    "write": (errno.ENOSPC, errno.EIO),
    "copy": (errno.ENOSPC, errno.EIO),
    "fsync": (errno.EIO, errno.ENOSPC),
    "rename": (errno.ENOSPC, errno.EROFS),
    "link": (errno.ENOSPC, errno.EMLINK, errno.EIO),
    "ioctl": (errno.EIO,),
    "unlink": (errno.EIO, errno.EROFS),
    "rmdir": (errno.EIO,),
    "mkdir": (errno.ENOSPC, errno.EACCES),
    "chmod": (errno.EIO,),
    "utime": (errno.EROFS,),
    "truncate": (errno.EIO,),
    "flock": (errno.EIO,),
}
"""Errors of each operation, as its manual page lists them."""


_CHANCE = re.compile(r"[0-9a-f]{32}|\b[0-9a-f]{2}\b|(?<=-)\w{8}\b|\d+-\d+")
"""The random parts of file names: digests, suffixes of temporary files, process ids."""


@dataclass(slots=True, kw_only=True)
class Walk:
    """The result of a walk: the places tried, of how many, the outcome of each, and the problems
    found after it."""

    points: int = 0
    places: int = 0
    errors: int = 0
    reruns: int = 0
    wrong: list = field(default_factory=list)

    def __add__(self, other):
        return Walk(points=self.points + other.points, places=self.places + other.places,
                    errors=self.errors + other.errors, reruns=self.reruns + other.reruns,
                    wrong=self.wrong + other.wrong)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A way of disturbing: `points` gives, of the calls of a work and the folder that they are in,
    what to answer to which, as (number, answer, name of the operation).

    `counts` are the calls that are numbered; `check` holds a run against what must come of it, and
    gives how many errors it reported; if it `stays`, the answer is the same to all later calls that
    need room.
    """

    points: Callable
    counts: Callable
    check: Callable
    stays: bool = False


def _kills(calls, root):
    for number, call in enumerate(call for call in calls if call.changes):
        yield number, KILL, call.name
        if call.name == "write" and len(call.content) > 1:
            yield number, HALF, HALF


def _failures(calls, root):
    seen = set()
    for number, call in enumerate(calls):
        kind = call.name, *(_kind(path, root) for path in call.paths)
        if kind not in seen:
            seen.add(kind)
            yield from ((number, error, call.name) for error in ERRORS[call.name])


def _full_disks(calls, root):
    return ((number, errno.ENOSPC, call.name) for number, call in enumerate(calls)
            if call.name in FULL)


def chosen(points, scene, every):
    """Every so-many-th point; without a number one of each of half the kinds of operations, in the
    middle of its kind, where the scenes before and after this one try the other half."""
    if every:
        return points[::every]
    turn, kinds = list(SCENES).index(scene.name), {}
    for point in points:
        kinds.setdefault(point[-1], []).append(point)
    return [found[len(found) // 2] for kind, found in kinds.items()
            if [*ERRORS, HALF].index(kind) % 2 == turn % 2]


def walked(fault, stage, scene, every, part=0, parts=1):
    """Disturbs a scene at the chosen points, or a part of them."""
    points = list(fault.points(stage.undisturbed(scene).calls, stage.watcher.root))
    found = Walk(places=len(points))
    for number, answer, kind in chosen(points, scene, every)[part::parts]:
        stage.reset(scene)
        decide = _at(number, answer, fault)
        run = stage.run(scene.act, decide)
        found.points += 1
        try:
            assert decide.met.name == ("write" if kind == HALF else kind), f"was {kind} before"
            is_lost = (kind, answer) == ("read", errno.EIO)
            found.errors += fault.check(run, stage, scene, is_lost)
            found.reruns += stage.check(scene)
        except AssertionError as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            found.wrong.append(
                f"{scene.name}: {answer} at {number}, {decide.met}: {place.line}: {error}")
    return found


def _kind(path, root):
    return _CHANCE.sub("*", path.removeprefix(root))


def _at(number, answer, fault):
    def decide(call):
        if not fault.counts(call):
            return None
        decide.seen += 1
        if decide.seen == number + 1:
            decide.met = call
            return answer
        return answer if fault.stays and decide.seen > number and call.name in FULL else None

    decide.seen, decide.met = 0, NEVER
    return decide


def _is_killed(run, stage, scene, is_lost):
    assert run.status == -9, "it was not killed"
    return 0


def _check_reported(run, stage, scene, is_lost):
    """Whatever fails is reported; what is not reported has not failed. A file that the disk
    has lost need not be reported: it counts as none, and what is known of by it alone may be
    missing."""
    assert run.status == 0, run.printed
    assert "Traceback" not in run.printed, run.printed
    if "error" not in run.result:
        found, done = stage.look(), stage.undisturbed(scene).done
        missing = done.store.content - found.store.content
        assert found.bundle == done.bundle
        assert found.store.content <= done.store.content
        assert is_lost or not missing
        return 0
    assert run.result["hint"] or "hint: " in run.result["error"], run.result
    assert "Traceback" not in run.result["error"], run.result["error"]
    return 1


FAULTS = {
    "killed": Fault(points=_kills, counts=lambda call: call.changes, check=_is_killed),
    "failed": Fault(points=_failures, counts=lambda call: True, check=_check_reported),
    "filled": Fault(points=_full_disks, counts=lambda call: True, check=_check_reported,
                    stays=True),
}
"""A kill before each operation that changes something, and in the middle of each write; a failure
of each kind of operation on each kind of file, in each of its ways; a disk that is full from each
operation on that needs room, until the end."""
