"""A catalogue on many machines, simulated: how long it takes, and what the shared store receives.

    python -m benchmarks.machines [--checkpoints N] [--machines N]

Seconds of steps and bytes of artifacts are those measured of sd-2-1-base on two cores
(docs/benchmarks.md), in three variants: 6 bits, 4 bits, fp16. Each machine takes one checkpoint
after the other, and runs one step at a time. All send and fetch through one shared store, whose
speed they share evenly, each by a link of one gigabit a second. What a worker uploads is decided by
`is_worth_it`, as it is in a build; compared with everything, and with bundles alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sdbuild.cluster.uploads import MOVED, Readers, is_worth_it

GB = 1e9
LINK_BYTES_S = 125e6
STORES_BITS_S = (1e9, 10e9, 40e9, 100e9)
ARCHITECTURE_S = 84.0
"""The time of the steps that all checkpoints share: 75 + 67 s of the first bundle, less 38 + 20
s."""

HEAD = ("| shared store | policy | time | uploaded | made again |\n"
        "| --- | --- | ---: | ---: | ---: |")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of a checkpoint: its seconds, the bytes it gives, and whether a bundle is made of
    it."""

    name: str
    seconds: float
    size_bytes: float
    is_last: bool = False


STEPS = (
    Step(name="download", seconds=10, size_bytes=2.6 * GB),
    Step(name="convert", seconds=13, size_bytes=2.5 * GB),
    Step(name="palettize, 6 bits", seconds=18, size_bytes=0.93 * GB),
    Step(name="palettize, 4 bits", seconds=18, size_bytes=0.64 * GB),
    Step(name="the rest", seconds=17, size_bytes=0),
    Step(name="compiled, 6 bits", seconds=0.5, size_bytes=1.0 * GB, is_last=True),
    Step(name="compiled, 4 bits", seconds=0.5, size_bytes=0.75 * GB, is_last=True),
    Step(name="compiled, fp16", seconds=0.6, size_bytes=2.5 * GB, is_last=True),
)

Policy = Callable[[Step, float], bool]
POLICIES: dict[str, Policy] = {
    "every step": lambda step, remake_s: True,
    "weighed": lambda step, remake_s: is_worth_it(
        Readers(are_last=step.is_last, are_spread=False), int(step.size_bytes), remake_s,
        LINK_BYTES_S),
    "bundles alone": lambda step, remake_s: step.is_last,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The cost of a catalogue.

    Units:
        seconds: wall clock; uploaded_bytes: into the shared store; again_s: of steps made again.
    """

    seconds: float
    uploaded_bytes: float
    again_s: float


def phases(policy: Policy, is_moved: bool) -> Iterator[tuple[float, float, float]]:
    """Yields of one checkpoint the seconds of each piece of work, the bytes sent after it, and the
    seconds of it that are spent on what was made before.

    Of a checkpoint that `is_moved` the palettes are made on another machine than what they are made
    of.
    """
    remake_s = 0.0
    for step in STEPS:
        again = remake_s if is_moved and step.name == "palettize, 4 bits" else 0.0
        fetched = step.size_bytes if step.name == "download" else 0.0
        if fetched:
            yield 0.0, fetched, 0.0
        if not step.is_last:
            remake_s += step.seconds + fetched / LINK_BYTES_S
        is_sent = policy(step, remake_s if not step.is_last else step.seconds)
        remake_s = 0.0 if is_sent and not step.is_last else remake_s
        yield step.seconds + again, step.size_bytes if is_sent else 0.0, again


def simulate(policy: Policy, checkpoints: int, machines: int, store_bytes_s: float) -> Outcome:
    """Returns what a catalogue takes with a policy and a shared store of this speed."""
    every = round(1 / MOVED)
    waiting = iter(range(checkpoints))
    plans: list[Iterator[tuple[float, float, float]]] = [iter(()) for _ in range(machines)]
    busy = [ARCHITECTURE_S] * machines  # all wait for the one that makes it
    left = [0.0] * machines
    active = set(range(machines))
    now = uploaded = again_s = 0.0
    while active:
        sending = [m for m in active if busy[m] <= 0]
        rate = min(LINK_BYTES_S, store_bytes_s / len(sending)) if sending else LINK_BYTES_S
        step = min(busy[m] if busy[m] > 0 else left[m] / rate for m in active)
        now += step
        for m in list(active):
            if busy[m] > 0:
                busy[m] = max(0.0, busy[m] - step)
            else:
                left[m] -= step * rate
            while busy[m] <= 1e-9 and left[m] <= 1e-3 and m in active:
                found = next(plans[m], None)
                if found is not None:
                    busy[m], left[m] = found[0], found[1]
                    uploaded += found[1] if found[0] else 0.0
                    again_s += found[2]
                elif (number := next(waiting, None)) is not None:
                    plans[m] = phases(policy, number % every == 0)
                else:
                    active.discard(m)
    return Outcome(seconds=now, uploaded_bytes=uploaded, again_s=again_s)


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulates and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--checkpoints", type=int, default=1000)
    parser.add_argument("--machines", type=int, default=50)
    found = parser.parse_args(arguments)
    print(HEAD)
    for bits_s in STORES_BITS_S:
        for name, policy in POLICIES.items():
            got = simulate(policy, found.checkpoints, found.machines, bits_s / 8)
            print(f"| {bits_s / 1e9:.0f} Gb/s | {name} | {got.seconds / 3600:.1f} h | "
                  f"{got.uploaded_bytes / 1e12:.1f} TB | {got.again_s / 3600:.1f} h |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
