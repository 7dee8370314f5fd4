"""Checkpoints as steps read them: where each is found, and what of it goes into a step's key."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdbuild.base.errors import SDBuildError, SourceError, Unreachable
from sdbuild.checkpoints import (
    RESOURCES,
    Checkpoint,
    combine_errors,
    is_hub,
    named,
    normalize,
    open_checkpoint,
)
from sdbuild.checkpoints.beside import Beside
from sdbuild.checkpoints.files import EMBEDDINGS, Files
from sdbuild.checkpoints.packages import expect_packages
from sdbuild.checkpoints.together import Part, expect_fit
from sdbuild.engine.stage import FINISHED
from sdbuild.engine.step import Step
from sdbuild.recipe.sources import Source
from sdbuild.store import Store
from sdbuild.store.json_cache import Notes
from sdbuild.store.stat_cache import source_digest

_WHOLE = "file"
"""The name of a single file among its digests."""


class Checkpoints:
    """The checkpoints that the steps of a build read. A place that fails is tried once.

    Args:
        known: the digests that another machine found for what a step reads, by the step's name.
    """

    def __init__(
        self, store: Store, known: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        self._store = store
        self._known = known or {}
        self._facts = Notes(store, "hub")
        self._opened: dict[Source, Checkpoint | Files | SourceError] = {}

    def __repr__(self) -> str:
        return ", ".join(map(str, self._opened.values()))

    def digests(self, step: Step) -> dict[str, str]:
        """Returns what the step's key holds of what it reads: its lock, or the digest of each file.

        Raises:
            SourceError: no place has it.
        """
        if step.locked:
            return dict(step.locked)
        return dict(self._known[step.name]) if step.name in self._known else self.identity(step)

    @contextlib.contextmanager
    def expecting_unchanged(
        self, name: str, read: Iterable[tuple[Step, Mapping[str, str]]]
    ) -> Iterator[None]:
        """Makes sure that the step `name` has read what keys are of, whatever became of it.

        Args:
            read: the steps whose sources it reads, and the digests in the key of each.

        Raises:
            SourceError: it has not, or no place has it any more.
        """
        try:
            yield
        except SDBuildError:
            self._expect_unchanged(name, read)
            raise
        self._expect_unchanged(name, read)

    def _expect_unchanged(self, name: str, read: Iterable[tuple[Step, Mapping[str, str]]]) -> None:
        for step, digests in read:
            if step.locked:
                continue
            try:
                now = self.identity(step)
            except SourceError as error:
                raise SourceError(f"{name}: while it was read: {error.message}", hint=error.hint,
                                  **error.facts) from error
            if now != dict(digests):
                changed = min(file for file in now.keys() | digests.keys()
                              if now.get(file) != digests.get(file))
                elsewhere = ", or is another one than on the machine that planned the step" \
                    if step.name in self._known else ""
                raise SourceError(
                    f"{name}: {self._shown(step, changed)} changed while it was read{elsewhere}",
                    hint="run the same command again once nothing writes to it")

    def _shown(self, step: Step, file: str) -> str:
        """Returns where a file that the step reads is, by the file's name in the step's digests."""
        assert step.source is not None
        found = self.resolve(step.source)
        if not isinstance(found, Files):
            return found.place if file == _WHOLE else f"{found.place}: {file}"
        number, _, beside = file.partition("/")
        place = found.places[int(number)]
        return str(Path(place).with_name(beside)) if beside else place

    def identity(self, step: Step) -> dict[str, str]:
        """Returns the digest of each file that the step reads, in the location that is used.

        Raises:
            SourceError: no place has it, or it cannot be read.
        """
        if step.source is None:
            return {}
        found: dict[str, str] = {}
        try:
            checkpoint = self.resolve(step.source)
            if FINISHED in step.params and not isinstance(checkpoint, Files):
                expect_packages(checkpoint)
            for part in step.reads:
                found |= checkpoint.identity(part, lambda path: source_digest(path, self._store))
        except OSError as error:
            what = error.filename or ", ".join(step.source.places)
            raise SourceError(f"{what}: {error.strerror or error}",
                              hint="see that it can be read, then try again") from error
        return found

    def reach(self, step: Step, steps: Mapping[str, Step]) -> None:
        """Makes sure that the step can read what it needs, at any place that it may read from,
        that it is of networks that can be built, and that embeddings fit the one they are for.

        Args:
            steps: all of the plan, by name.
        Raises:
            SourceError: it cannot, or is not.
        """
        if step.source is None or not step.locked:
            self._check(step)
            if EMBEDDINGS in step.reads:
                self._check_embeddings(step, steps)
            return
        problems = []
        for place in step.source.places:
            try:
                self._check(replace(step, source=replace(step.source, places=(place,))))
                return
            except SourceError as error:
                problems.append(error)
        raise combine_errors(problems)

    def expect_fit(self, steps: Iterable[Step]) -> None:
        """Makes sure that the networks of a bundle fit each other, as far as they can be read. A
        locked one is left out: where it is made already, no place needs to be asked for it.

        Raises:
            SourceError: two do not fit.
        """
        parts: dict[str, Part] = {}
        for step in steps:
            if step.source is None or step.source.are_files or RESOURCES in step.reads \
                    or step.locked or FINISHED in step.params:
                continue
            with contextlib.suppress(SourceError, OSError):
                found = self.resolve(step.source)
                assert not isinstance(found, Files)
                config = normalize.architecture_of(found, step.reads[:1], step.params)["config"]
                parts[step.component] = Part(place=found.place, config=config,
                                             family=step.params.get("family", "sd"))
        expect_fit(parts)

    def are_on_disk_of_store(self, step: Step) -> bool:
        """Whether a step's source is on the same file system as the store; true without one."""
        disk = self._store.root.stat().st_dev
        return all(Path(place).stat().st_dev == disk for place in self.job(step).get("places", ()))

    def _check(self, step: Step) -> None:
        self.identity(step)
        found = self.resolve(step.source) if step.source else None
        if isinstance(found, Files):
            for part in step.reads:
                found.check(part, step.params.get("family", "sd"))
        elif found is not None and FINISHED not in step.params:
            with named(found.place, step.source.config if step.source else ""):
                normalize.check(found, step.reads, step.params)

    def _check_embeddings(self, step: Step, steps: Mapping[str, Step]) -> None:
        """Makes sure that embeddings fit what they are written into. Where that cannot be had, it
        is said of the step that reads it."""
        from sdbuild.checkpoints.embeddings.added import added, words_in
        from sdbuild.checkpoints.embeddings.embedding import expect_widths

        base = steps[step.inputs["checkpoint"].step]
        while base.source is None or base.source.are_files:
            base = steps[base.inputs["checkpoint"].step]
        try:
            found = self.resolve(base.source)
            assert not isinstance(found, Files)
            if RESOURCES in base.reads:
                words = words_in(found.resources())
            else:
                width = normalize.architecture_of(found, base.reads, base.params)["config"].get(
                    "hidden_size")
        except (SourceError, OSError):
            return
        places = self.job(step)["places"]
        if RESOURCES in base.reads:
            for _ in added(places, step.params["words"], words):
                pass
        elif type(width) is int:
            for place in places:
                expect_widths(Path(place), step.params["component"], width)

    def resolve(self, source: Source) -> Checkpoint | Files:
        """Returns the checkpoint at the first of the source's places that has one, or all its
        files.

        Raises:
            SourceError: none has.
        """
        if source not in self._opened:
            try:
                self._opened[source] = self._open(source)
            except SourceError as error:
                self._opened[source] = error
        found = self._opened[source]
        if isinstance(found, SourceError):
            raise found
        return found

    def _open(self, source: Source) -> Checkpoint | Files:
        if source.are_files:
            return Files(source.places)
        return open_checkpoint(source.places, self._facts, source.config, source.beside)

    def commit(self, place: str) -> str:
        """Returns the commit that a place is known to be at; empty if it has none, or was never
        asked."""
        return str(self._facts.get(place, "")).partition("@")[2]

    def commits(self, sources: Iterable[Source]) -> dict[str, str]:
        """Returns the commit of each place on the Hub that can be had and is not at one by its
        name."""
        found = {}
        for place in _on_hub(sources):
            with contextlib.suppress(SourceError):
                pinned = open_checkpoint([place], self._facts).place
                if pinned != place:
                    found[place] = pinned.partition("@")[2]
        return found

    def refresh(self, sources: Iterable[Source]) -> list[tuple[str, str, str]]:
        """Asks again what places are at; (place, commit before, commit now) of each that can move.

        Raises:
            SourceError: a place cannot be had; what was known of it stays.
        """
        moves = []
        for place in _on_hub(sources):
            fresh: dict[str, Any] = {}
            before, now = self.commit(place), open_checkpoint([place], fresh).place
            if now != place:
                if place not in fresh:  # the cache stood in
                    raise Unreachable(f"{place}: the Hub does not answer",
                                      hint="the known revision is kept; try again later")
                self._facts.update(fresh)
                moves.append((place, before, now.partition("@")[2]))
        return moves

    def job(self, step: Step) -> dict[str, Any]:
        """Returns the job of a step's process: from where it reads which parts of a
        checkpoint.

        A locked one may come from any place, for it is verified against the lock; another from the
        place that its key is of.
        """
        if step.source is None:
            return {}
        places, beside = step.source.places, step.source.beside
        found = None if step.locked else self.resolve(step.source)
        if found is not None:
            places = found.places if isinstance(found, Files) else (found.place,)
        if isinstance(found, Beside):
            beside = (found.other.place,)
        return {
            "places": places, "beside": beside, "config": step.source.config,
            "facts": dict(self._facts), "reads": step.reads, "locked": dict(step.locked),
        }


def _on_hub(sources: Iterable[Source]) -> list[str]:
    return [place for source in sources for place in source.places if is_hub(place)]
