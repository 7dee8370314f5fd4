"""Scenes for faults: small pieces of a build, each on a prepared store, and what must hold after
it."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.faults import reader
from tests.faults.watch import Watcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """`before` prepares, `act` is disturbed, `again` is what a user does after: a function of
    `small_build.py` and its arguments."""

    name: str
    before: tuple = ()
    act: tuple = ("build", {})
    again: tuple = ("build", {})


BUILD, OTHER, DAMAGE = ("build", {}), ("build", {"nbits": 3}), ("damage", {})
VIRTUAL = ("build", {"nbits": 4})
SCENES = {scene.name: scene for scene in (
    Scene(name="a first build"),
    Scene(name="replacing an older bundle", before=(BUILD,), act=OTHER,
          again=OTHER),
    Scene(name="forget a step and build", before=(BUILD,), act=("forget", {})),
    Scene(name="gc", before=(OTHER, BUILD), act=("gc", {})),
    Scene(name="relink", before=(BUILD,), act=("relink", {}), again=("relink", {})),
    Scene(name="a virtual package", before=(OTHER,), act=VIRTUAL, again=VIRTUAL),
    Scene(name="verify and build again", before=(BUILD, DAMAGE), act=("mend", {})),
)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A snapshot of the disk: the store, the bundle, and everything else in the folder."""

    store: reader.View
    bundle: dict | None
    beside: dict


@dataclass(frozen=True, slots=True, kw_only=True)
class Undisturbed:
    """The snapshots of a scene without faults: at its start, after its act, and after what follows;
    the keys that ran; the calls of its act."""

    calls: list
    start: Look
    done: Look
    end: Look
    keys: frozenset


class Stage:
    """A world at one place, put back to the beginning of a scene as often as needed."""

    def __init__(self, base):
        self.base = Path(base)
        self.world, self.source, self.runs = (self.base / n for n in ("world", "source", "runs"))
        self.watcher = Watcher(self.world)
        self._undisturbed = {}
        for name in ("unet", "vae"):
            (self.source / name).mkdir(parents=True)
            (self.source / name / "weights.safetensors").write_bytes(name.encode() * 1000)

    def close(self):
        self.watcher.__exit__()

    def run(self, work, decide=None, watcher=None):
        """Does a work, disturbed as `decide` says; other watchers may do others meanwhile."""
        function, more = work
        return (watcher or self.watcher).run(function, {
            "world": str(self.world), "source": str(self.source), "runs": str(self.runs), **more,
        }, decide)

    def ran(self):
        """The keys of the stages that ran since this was last asked, in their order."""
        return [key for _, key in self.started()]

    def started(self):
        """The same, each with the process that built it."""
        text = self.runs.read_text() if self.runs.exists() else ""
        self.runs.unlink(missing_ok=True)
        lines = [line.split() for line in text.splitlines()]
        return [(int(pid), key) for what, pid, key in lines if what == "start"]

    def reset(self, scene):
        """Puts the world back to the beginning of a scene; the keys that ran for it."""
        saved = self.base / "saved" / scene.name
        shutil.rmtree(self.world, ignore_errors=True)
        if not saved.exists():
            self.world.mkdir()
            (self.world / "out" / ".mine-photos").mkdir(parents=True)
            (self.world / "out" / ".mine-photos" / "one").write_text("a photo")
            (self.world / "out" / "letter").write_text("a letter")
            for work in scene.before:
                assert self.run(work).result == {}
            saved.parent.mkdir(exist_ok=True)
            subprocess.run(["cp", "-a", self.world, saved], check=True)
        else:
            subprocess.run(["cp", "-a", saved, self.world], check=True)
            for record in (self.world / "cache").glob("records/*/*.json"):
                os.utime(record)  # a build notes its use if it is of an hour ago
        return self.ran()

    def look(self):
        out = self.world / "out"
        return Look(store=reader.read(self.world / "cache"), bundle=reader.tree(out / "mine"),
                    beside=reader.beside(out, "mine"))

    def undisturbed(self, scene):
        """Runs the scene without a fault."""
        if scene.name not in self._undisturbed:
            shutil.rmtree(self.base / "saved" / scene.name, ignore_errors=True)
            keys = self.reset(scene)
            self.reset(scene)  # as in a walk
            start = self.look()
            act = self.run(scene.act, lambda call: None)
            assert act.result == {}
            done = self.look()
            assert self.run(scene.again).result == {}
            self._undisturbed[scene.name] = Undisturbed(
                calls=act.calls, start=start, done=done, end=self.look(),
                keys=frozenset([*keys, *self.ran()]))
        return self._undisturbed[scene.name]

    def check(self, scene):
        """Holds the world against all that must be true after a disturbance, and after the next
        undisturbed work; how many steps ran again."""
        expected = self.undisturbed(scene)
        found = self.look()
        assert set(found.store.wrong) <= set(expected.start.store.wrong)
        assert found.bundle in (expected.start.bundle, expected.done.bundle)
        assert found.bundle is None or self._is_kept(found)
        assert expected.start.beside.items() <= found.beside.items()
        self.ran()

        again = self.run(scene.again)

        assert again.result == {}, again.printed
        ran, last = self.ran(), self.look()
        assert len(ran) == len(set(ran))
        assert set(ran) <= expected.keys - found.store.whole
        assert last.store.wrong == ()
        made = last.store.made.values()  # a bundle's key tells where it came from, if known
        assert all(tree in made for tree in expected.done.store.made.values())
        assert last.bundle == expected.end.bundle
        assert last.beside == expected.start.beside
        self._check_left(last.store.left)
        return len(ran)

    def _is_kept(self, look):
        """Whether the store knows that the bundle in its place is there, so that no gc takes what
        it holds."""
        place, name = str(self.world / "out" / "mine"), "manifest.json"
        return any(folder == place and look.store.made.get(key, {}).get(name) == look.bundle[name]
                   for folder, key in look.store.kept_for)

    def _check_left(self, left):
        """Unfinished small files stay until the next gc, and nothing else."""
        assert all(Path(name).name.startswith(".new-") for name in left), left
        if left:
            assert self.run(("gc", {})).result == {}
            assert self.look().store.left == ()
