"""Walks every file operation of a scene and disturbs it there."""

import errno
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from watch import HALF, KILL

FULL = ("open", "write", "mkdir", "rename", "link", "copy", "symlink")
"""What needs room on the disk."""

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
"""How each operation may fail, as far as its manual says."""


_CHANCE = re.compile(r"[0-9a-f]{32}|\b[0-9a-f]{2}\b|(?<=-)\w{8}\b|\d+-\d+")
"""What differs between files of one kind: digests, names of chance, numbers of processes."""


@dataclass(slots=True, kw_only=True)
class Walk:
    """What was tried, of how many places to try, in what that ended, and what was wrong after it.
    """

    points: int = 0
    places: int = 0
    errors: int = 0
    reruns: int = 0
    wrong: list = field(default_factory=list)

    def __add__(self, other):
        return Walk(points=self.points + other.points, places=self.places + other.places,
                    errors=self.errors + other.errors, reruns=self.reruns + other.reruns,
                    wrong=self.wrong + other.wrong)


def killed(stage, scene, every=1, first=0):
    """Kills before each operation that changes something, and in the middle of each write."""
    def points(calls, _):
        changing = [call for call in calls if call.changes]
        for number, call in enumerate(changing):
            yield number, KILL
            if call.name == "write" and len(call.content) > 1:
                yield number, HALF

    return _walk(stage, scene, points, every, first, lambda call: call.changes, _is_killed)


def failed(stage, scene, every=1, first=0):
    """Makes each kind of operation on each kind of file fail in each of its ways."""
    def points(calls, root):
        seen = set()
        for number, call in enumerate(calls):
            kind = call.name, *(_kind(path, root) for path in call.paths)
            if kind not in seen:
                seen.add(kind)
                yield from ((number, error) for error in ERRORS[call.name])

    return _walk(stage, scene, points, every, first, lambda call: True, _is_told)


def filled(stage, scene, every=1, first=0):
    """Lets the disk be full from each operation on that needs room, until the end."""
    def points(calls, _):
        return ((number, errno.ENOSPC) for number, call in enumerate(calls)
                if call.name in FULL)

    return _walk(stage, scene, points, every, first, lambda call: True, _is_told, stays=True)


def _walk(stage, scene, points, every, first, counts, check: Callable, stays=False):
    stage.undisturbed(scene)
    stage.reset(scene)
    calls = stage.run(scene.act, lambda call: None).calls
    places = list(points(calls, stage.watcher.root))
    found = Walk(places=len(places))
    for number, answer in places[first::every]:
        stage.reset(scene)
        decide = _at(number, answer, counts, stays)
        run = stage.run(scene.act, decide)
        found.points += 1
        try:
            found.errors += check(run, stage, scene)
            found.reruns += stage.check(scene)
        except AssertionError as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            found.wrong.append(
                f"{scene.name}: {answer} at {number}, {decide.met}: {place.line}: {error}")
    return found


def _kind(path, root):
    return _CHANCE.sub("*", path.removeprefix(root))


def _at(number, answer, counts, stays):
    def decide(call):
        if not counts(call):
            return None
        decide.seen += 1
        if decide.seen == number + 1:
            decide.met = call
            return answer
        return answer if stays and decide.seen > number and call.name in FULL else None

    decide.seen, decide.met = 0, None
    return decide


def _is_killed(run, stage, scene):
    assert run.status == -9, "it was not killed"
    return 0


def _is_told(run, stage, scene):
    """Whatever fails is told in words; what is not told has not failed."""
    assert run.status == 0, run.printed
    assert "Traceback" not in run.printed, run.printed
    if "error" not in run.result:
        assert stage.look().bundle == stage.undisturbed(scene).done.bundle
        return 0
    assert run.result["hint"] or "hint: " in run.result["error"], run.result
    assert "Traceback" not in run.result["error"], run.result["error"]
    return 1
