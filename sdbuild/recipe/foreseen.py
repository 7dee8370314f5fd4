"""A bundle as its recipe foresees it, before anything is built: its models, batch and settings.

For the rules of the contract that a recipe alone can break. The numbers that only the checkpoint
knows, such as widths of embeddings, are 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from sdbuild.bundle.bundle_reader import Compiled, Feature, Opened
from sdbuild.families import Component
from sdbuild.families.nouns import SIZES, Port
from sdbuild.mil.files.suffixes import COMPILED
from sdbuild.recipe.recipe import Recipe

_CELL_PX = 8


def foreseen(recipe: Recipe) -> Opened:
    """Returns the bundle of a recipe; models of finished packages are without ports, which are
    their own."""
    return Opened(
        folder=Path(recipe.name), names=frozenset(), family=recipe.family.name,
        models={name: model for component in recipe.components
                for name, model in _models(component, recipe).items()},
        manifest={"components": {}, "draw": recipe.draw.settings()})


def _models(component: Component, recipe: Recipe) -> dict[str, Compiled]:
    """Returns the models of a component; of chunks, the first has all inputs and the last all
    outputs."""
    network, names = recipe.network, recipe.packaging.model_names(component)
    sizes = {"batch": network.batch, "height_px": network.height_px, "width_px": network.width_px}
    dims = {letter: sizes[field] // (_CELL_PX if letter in "hw" else 1)
            for letter, field in SIZES.items()}
    inputs, outputs = ({}, {}) if recipe.is_of_packages else (
        _features(component.inputs, dims), _features(component.outputs, dims))
    return {name: Compiled(file=name + COMPILED, path=Path(name + COMPILED),
                           inputs=inputs if name == names[0] else {},
                           outputs=outputs if name == names[-1] else {}) for name in names}


def _features(ports: Iterable[Port], dims: Mapping[str, int]) -> dict[str, Feature]:
    return {port.name: Feature(name=port.name, dtype=port.dtype, shape=tuple(
        size if isinstance(size, int) else dims.get(size, 0) for size in port.shape))
        for port in ports if not port.is_numbered}
