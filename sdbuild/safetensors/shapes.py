"""Checks the tensors of a checkpoint against the parameters of a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sdbuild.base.errors import SourceError

Shape = tuple[int, ...]
_SHOWN = 8


def check_fit(where: str, wanted: Mapping[str, Shape], found: Mapping[str, Shape]) -> list[str]:
    """Makes sure that every parameter has its tensor; gives the tensors that none wants.

    Args:
        wanted: the shapes of the parameters, by name; `found` those of the tensors.

    Raises:
        SourceError: some are missing or have another shape; names them with both shapes.
    """
    problems = list(_problems(wanted, found))
    if problems:
        more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise SourceError(
            f"{where}: the checkpoint does not fit its architecture:\n  "
            + "\n  ".join(problems[:_SHOWN]) + more,
            hint="config.json and the weights must be of the same model",
            problems=problems,
        )
    return sorted(found.keys() - wanted.keys())


def _problems(wanted: Mapping[str, Shape], found: Mapping[str, Shape]) -> Iterator[str]:
    for name, shape in wanted.items():
        if name not in found:
            yield f"{name}: missing, expected {list(shape)}"
        elif found[name] != shape:
            yield f"{name}: found {list(found[name])}, expected {list(shape)}"
