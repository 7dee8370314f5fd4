"""The order in which steps are handed out: those first that the longest path starts with.

Where each worker has many times as much to do as that path takes, the end does not wait for it.
Then one plan goes after the other, as on one machine: the first bundles are there sooner, and less
that is unfinished lies about.
"""

from __future__ import annotations

from collections.abc import Mapping

from sdbuild.engine.graph import Graph

_MANY = 4.0


def priorities(found: Graph, seconds: Mapping[str, float], workers: int) -> dict[str, float]:
    """Returns the priority of each node: the seconds of the longest path from it to a last one, or
    none.

    Args:
        seconds: those that each node takes.
    """
    left: dict[str, float] = {}
    for name, readers in reversed(found.readers().items()):
        left[name] = seconds[name] + max((left[each] for each in readers), default=0.0)
    longest = max(left.values(), default=0.0)
    is_long = sum(seconds[name] for name in left) < _MANY * workers * longest
    return left if is_long else dict.fromkeys(left, 0.0)
