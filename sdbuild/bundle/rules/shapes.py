"""Findings that rules of ports have in common: numbers of ports, shapes and types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from sdbuild.bundle.bundle_reader import Compiled, Feature
from sdbuild.bundle.rules.rule import Finding, names

Shape = tuple[int | str, ...]
"""A shape of which only some sizes matter: those in letters are of any size."""

NUMBERS = ("fp32", "fp16", "fp64", "int32")


def single(model: Compiled, kind: str, found: Mapping[str, Feature]) -> Iterator[Finding]:
    """Yields a finding if a model has more or fewer inputs or outputs than one."""
    if len(found) != 1:
        yield Finding(model.file, f"{kind} {names(found)}", "exactly one")


def fits(found: Sequence[int], shape: Shape) -> bool:
    """Whether ranks are equal, and sizes where they matter."""
    return len(found) == len(shape) and all(
        isinstance(wanted, str) or wanted == size
        for wanted, size in zip(shape, found, strict=True)
    )


def shaped(model: Compiled, features: Iterable[Feature], *shapes: Shape) -> Iterator[Finding]:
    """Yields a finding for each feature that has none of the shapes.

    One without a shape is of any: outputs need not declare one, and those of Apple's own do not.
    """
    for feature in features:
        if feature.shape and not any(fits(feature.shape, shape) for shape in shapes):
            yield Finding(f"{model.file} {feature.name}", str(feature.shape),
                          " or ".join(map(shape_text, shapes)))


def typed(
    model: Compiled, features: Iterable[Feature], dtypes: Sequence[str]
) -> Iterator[Finding]:
    """Yields a finding for each feature that is declared as another type."""
    for feature in features:
        if feature.dtype not in dtypes:
            yield Finding(f"{model.file} {feature.name}", feature.dtype, " or ".join(dtypes))


def present(ports: Mapping[str, Feature], *wanted: str) -> list[Feature]:
    """Returns those of the ports that are there."""
    return [ports[name] for name in wanted if name in ports]


def required(ports: Mapping[str, Feature]) -> set[str]:
    """Returns the names of inputs without which a model does not run."""
    return {name for name, feature in ports.items() if not feature.is_optional}


def shape_text(shape: Shape) -> str:
    """Returns a shape for a message: `(2, 4, h, w)`."""
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
