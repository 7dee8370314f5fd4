"""The pass of coremltools that removes transposes, in the same order in every run.

It keeps operations in sets, which give them in the order of their addresses in memory. Where
several transposes meet, as in the transformer of Stable Diffusion 3, the constants that it makes
anew were numbered in that order: the same network in other words each time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from coremltools.converters.mil.mil.passes.defs import optimize_repeat_ops


class OrderedSet(dict[object, None]):
    """As much of a set as the pass uses, in the order in which its items came."""

    def __init__(self, items: Iterable[object] = ()) -> None:
        super().__init__(dict.fromkeys(items))

    def add(self, item: object) -> None:
        """Adds an item."""
        self[item] = None

    def update(self, items: Iterable[object]) -> None:  # type: ignore[override]
        """Adds items."""
        super().update(dict.fromkeys(items))


@contextlib.contextmanager
def ordered_sets() -> Iterator[None]:
    """Gives the pass ordered sets for a while."""
    vars(optimize_repeat_ops)["set"] = OrderedSet
    try:
        yield
    finally:
        del vars(optimize_repeat_ops)["set"]
