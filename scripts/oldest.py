"""Prints the oldest versions that `pyproject.toml` allows, as constraints for pip.

    python scripts/oldest.py > constraints-oldest.txt

It needs nothing installed.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

PROJECT = Path(__file__).parent.parent
FIXED = ("torch",)
"""Packages that stay at the version in `constraints.txt`: builds of torch are too large to have
several of at every run. `TORCH=2.7.0 scripts/versions oldest` tries another."""

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_LEAST = re.compile(r">=\s*([\w.]+)")


def oldest(requirements: Iterable[str], pins: Iterable[str]) -> Iterator[str]:
    """A pin for each requirement: its lower bound, or for a fixed package the one in `pins`.

    Raises:
        ValueError: a requirement without a lower bound.
    """
    pinned = dict(pin.strip().split("==") for pin in pins if "==" in pin and pin[0] != "#")
    for requirement in requirements:
        name = _NAME.match(requirement)[0]
        least = _LEAST.search(requirement)
        if least is None:
            raise ValueError(f"pyproject.toml: {requirement!r} has no lower bound, expected >=")
        yield f"{name}=={pinned[name] if name in FIXED else least[1]}"


def constraints(project: Path) -> str:
    """The text of `constraints-oldest.txt`."""
    found = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))
    pins = (project / "constraints.txt").read_text("utf-8").splitlines()
    lines = ["# The oldest versions that pyproject.toml allows: python scripts/oldest.py",
             *oldest([*found["project"]["dependencies"],
                      *found["project"]["optional-dependencies"]["networks"]], pins)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(constraints(PROJECT), end="")
