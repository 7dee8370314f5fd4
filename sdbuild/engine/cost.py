"""The cost of a step before it runs: as measured before, or from the size of its network.

A record tells what a step will hold if it was made by the same steps with the same parameters from
a checkpoint of the same architecture: the weights themselves change neither time nor memory.
Another machine's memory is measured in another way and used by other libraries: its records, which
come with a shared store, tell the time only.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf, prod
from pathlib import Path
from typing import Any

from sdbuild.base.digest import digest, digest_bytes
from sdbuild.base.errors import MissingArtifact, SDBuildError
from sdbuild.base.parsing import Malformed, json_object
from sdbuild.checkpoints import RESOURCES, normalize, normalized
from sdbuild.checkpoints.files import Files
from sdbuild.checkpoints.normalized import ARCHITECTURE, WEIGHTS
from sdbuild.engine.plan import Plan
from sdbuild.engine.sources import Checkpoints
from sdbuild.engine.stage import NetworkSize
from sdbuild.engine.step import Step
from sdbuild.store import SHIPPED, Record, Store
from sdbuild.store.record import Entry, tree_digest

_MORE = 1.1
"""The share by which runs of a step differ; 8 % was seen."""

_LARGEST_HEADER = 100_000_000
"""Bytes; safetensors itself takes no larger one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of a step: measured, or else an estimate.

    The time is that of the most similar step that ran, of which `is_measured` says that it is
    one of the very same kind on this machine; where there is none, it `is_estimate`, from the size
    of the network alone.

    Some steps can do with less memory than they can make use of: between `least_bytes` and
    `most_bytes`. For the others both are the peak, with some room if it was measured. `size_bytes`
    is the size of the most similar step's artifact, None if there is none.

    Units:
        seconds: wall clock, None if nothing like it ran yet and the size is not known; bytes:
        anonymous memory of its process.
    """

    seconds: float | None
    peak_bytes: int
    is_measured: bool
    least_bytes: int
    most_bytes: int
    is_estimate: bool = False
    size_bytes: int | None = None


class Known:
    """The records of a store, and what was found of checkpoints, for the costs of some plans.

    The records are read once: what the build itself adds will not run again.
    """

    def __init__(self, store: Store, plans: Iterable[Plan]) -> None:
        self.of_step: dict[str, list[Record]] = {}
        self.by_output: dict[str, list[Record]] = {}
        self.architectures: dict[str, str | None] = {}
        self.sizes: dict[str, NetworkSize] = {}
        paths = {source.path for plan in plans for step in plan.steps.values()
                 for source in step.inputs.values()}
        for record in store.records():
            if record.origin != SHIPPED:  # which ran nowhere
                self.of_step.setdefault(record.step, []).append(record)
            for path in {"", *paths}:
                if record.part(path):
                    self.by_output.setdefault(record.digest(path), []).append(record)


class Costs:
    """The costs of a plan's steps, as far as the records of a store tell.

    Args:
        record_of: gives the record of a step of the plan, or None if it is not made.
        known: the records of the store, where several plans share them.
    """

    def __init__(
        self, plan: Plan, store: Store, checkpoints: Checkpoints,
        record_of: Callable[[str], Record | None], known: Known | None = None,
    ) -> None:
        self._plan = plan
        self._store = store
        self._checkpoints = checkpoints
        self._record_of = record_of
        self._known = known or Known(store, [plan])

    def expected(self, name: str) -> Cost:
        """Returns what the step called `name` will cost."""
        step = self._plan.steps[name]
        records = self._known.of_step.get(name, ())
        known = sorted(((self._distance(record, step), record) for record in records),
                       key=lambda pair: pair[0])
        here = platform.node()
        same = [r for distance, r in known if distance == 0 and r.host == here]
        nearest = known[0][1] if known and known[0][0] < inf else None
        near = nearest.seconds if nearest else None
        size_bytes = nearest.size_bytes if nearest else None
        network = self._network(step)
        needs = step.stage.memory_of(step.params)
        least, most = needs.at(network), (step.stage.most_memory or needs).at(network)
        if not same:
            seconds = self._estimated_seconds(step, network) if near is None else near
            return Cost(seconds=seconds, peak_bytes=most, is_measured=False,
                        is_estimate=near is None, least_bytes=least, most_bytes=most,
                        size_bytes=size_bytes)
        newest = max(same, key=lambda record: record.made_at)
        peak = max(record.peak_bytes for record in same)
        room = int(_MORE * peak)
        return Cost(seconds=newest.seconds, peak_bytes=peak, is_measured=True,
                    least_bytes=min(least, peak) if most > least else room,
                    most_bytes=max(most, room) if most > least else room,
                    size_bytes=size_bytes)

    def _distance(self, record: Record, step: Step) -> float:
        """In how many parameters the record's making differs from the plan's; infinite if it
        cannot be compared: another architecture, other steps, another version of one.
        """
        found = record.ingredients
        if record.step != step.name or found.get("version") != step.stage.version:
            return inf
        if step.kind == "download":
            same = RESOURCES in step.reads or self.architecture(step) == _architecture(record)
            return 0 if same else inf
        total: float = _differing(found.get("params", {}), step.params)
        for name, source in step.inputs.items():
            makers = self._known.by_output.get(found.get("inputs", {}).get(name, ""), ())
            maker = self._plan.steps[source.step]
            total += min((self._distance(r, maker) for r in makers), default=inf)
        return total

    def architecture(self, step: Step) -> str | None:
        """Returns the digest of the architecture that a download gives; None if it is not known
        yet."""
        found, name = self._known.architectures, _of_checkpoint(step)
        if name not in found:
            with contextlib.suppress(SDBuildError):
                record = self._record_of(step.name)
                found[name] = _architecture(record) if record else self._digest_of_config(step)
        return found.setdefault(name, None)

    def _digest_of_config(self, step: Step) -> str | None:
        """Returns the digest of the file that a download from this machine would write."""
        if step.source is None or RESOURCES in step.reads or not self._local_files(step):
            return None
        checkpoint = self._checkpoints.resolve(step.source)
        if isinstance(checkpoint, Files):
            return None
        content = normalized.encode(
            normalize.architecture_of(checkpoint, step.reads, step.params))
        return tree_digest((Entry(ARCHITECTURE, digest_bytes(content), len(content)),))

    def _local_files(self, step: Step) -> list[Path]:
        """Returns the files of the checkpoint that the step would read, those that are on this
        machine."""
        found: list[Path] = []

        def note(path: Path) -> str:
            found.append(path)
            return ""

        if step.source is not None:
            with contextlib.suppress(SDBuildError):
                checkpoint = self._checkpoints.resolve(step.source)
                for part in step.reads:
                    checkpoint.identity(part, note)
        return found

    def _network(self, step: Step) -> NetworkSize:
        """Returns the size of the network that the step holds, as far as it is known."""
        sizes = [self._size(download) for download in self._downloads(step)]
        if step.stage.holds_one_network:
            return max(sizes, key=lambda size: size.all)
        return sum(sizes, start=NetworkSize())

    def _downloads(self, step: Step) -> list[Step]:
        return [s for s in self._plan.needed_by(step.name) if s.kind == "download"]

    def _estimated_seconds(self, step: Step, network: NetworkSize) -> float | None:
        """Returns what the step takes by the size of its network; None if that is not known."""
        networks = [each for each in self._downloads(step) if RESOURCES not in each.reads]
        is_known = all(self._size(each).tensors for each in networks)
        return step.stage.time_of(step.params).at(network) if is_known else None

    def _size(self, step: Step) -> NetworkSize:
        """Returns the size of a download's network; nothing if it is not known yet."""
        name = _of_checkpoint(step)
        if name not in self._known.sizes:
            self._known.sizes[name] = _size(*self._weights(step), self._streamed(step))
        return self._known.sizes[name]

    def _streamed(self, step: Step) -> Collection[str]:
        """Returns the names of tensors that are read a part at a time, so that no step holds them
        whole."""
        return next((component.derived for component in self._plan.recipe.components
                     if component.label == step.component), ())

    def _weights(self, step: Step) -> tuple[list[Path], Sequence[str]]:
        """Files of this machine with the network's tensors, and how their names begin there."""
        wanted = self.architecture(step)
        for record in self._known.of_step.get(step.name, ()):
            if wanted is not None and _architecture(record) == wanted:
                with contextlib.suppress(MissingArtifact):  # its content may be elsewhere
                    return [self._store.file(record, WEIGHTS)], [""]
        files = [path for path in self._local_files(step) if path.suffix == ".safetensors"]
        return files, step.params.get("prefixes", ())


def _of_checkpoint(step: Step) -> str:
    """Returns a name for a download that those of other plans from the same checkpoint have too."""
    return digest("download", [step.component, asdict(step.source) if step.source else None,
                               list(step.reads), dict(step.locked), dict(step.params)])


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    return sum(before.get(name) != after.get(name) for name in {*before, *after})


def _architecture(record: Record) -> str | None:
    return record.digest(ARCHITECTURE) if record.part(ARCHITECTURE) else None


def _size(
    files: Iterable[Path], prefixes: Sequence[str], streamed: Collection[str]
) -> NetworkSize:
    """Returns the size of a network, from the headers of its safetensors files."""
    counts = [0]
    for path in files:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json_object(file.read(min(length, _LARGEST_HEADER)), path.name, Malformed,
                                     most_bytes=_LARGEST_HEADER, has_controls=True)
            counts += [
                prod(entry["shape"]) for name, entry in header.items()
                if name.startswith(tuple(prefixes)) and name not in ("__metadata__", *streamed)
            ]
    return NetworkSize(all=sum(counts), largest=max(counts), tensors=len(counts) - 1)
