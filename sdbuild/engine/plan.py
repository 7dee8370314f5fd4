"""From a recipe to the steps that make its bundle: a pure function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sdbuild.engine.stage import STAGES, BundleStage, ComponentStage, From, Need, stage
from sdbuild.engine.step import Step
from sdbuild.families import Component
from sdbuild.families.nouns import size_text
from sdbuild.recipe.recipe import Recipe

RESOURCES = Component(name="resources", bundle_name="", folder="", inputs=(), outputs=())
"""Stands beside the components for what a bundle holds besides networks: tokenizer, scheduler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps of a recipe, each after those that it needs."""

    recipe: Recipe
    steps: Mapping[str, Step]

    def needed_by(self, name: str) -> list[Step]:
        """Returns the steps that `name` is made from, itself last."""
        wanted = {name}
        for step in reversed(list(self.steps.values())):
            if step.name in wanted:
                wanted.update(source.step for source in step.inputs.values())
        return [step for step in self.steps.values() if step.name in wanted]


def plan(recipe: Recipe) -> Plan:
    """Returns the steps that make the recipe's bundle."""
    steps: list[Step] = []
    made: dict[str, dict[str, str]] = {}
    for component in (*recipe.components, RESOURCES):
        made[component.label] = {}
        steps += _of_component(recipe, component, made[component.label])
    steps += _of_bundle(recipe, made)
    return Plan(recipe=recipe, steps={step.name: step for step in steps})


def _of_component(recipe: Recipe, component: Component, made: dict[str, str]) -> Iterator[Step]:
    """Yields the steps of one component; `made` maps each role to the step that last gave it, of
    all sizes but the first with the size behind it."""
    first, *others = recipe.network.sizes_of(component) or (None,)
    for kind in STAGES:
        found = stage(kind)
        if not isinstance(found, ComponentStage) or not found.applies(recipe, component):
            continue
        for size in (first, *others) if found.is_sized else (first,):
            suffix = "" if size == first or size is None else f"@{size_text(size)}"
            step = _step(kind, recipe.at(size) if size else recipe, component, made, suffix)
            made[found.gives + suffix] = step.name
            yield step


def _step(
    kind: str, recipe: Recipe, component: Component, made: Mapping[str, str], suffix: str
) -> Step:
    """Returns the step of a stage for a component, `suffix` for a size that is not the first."""
    found = stage(kind)
    assert isinstance(found, ComponentStage)
    reading = found.reading(recipe, component)
    return Step(
        kind=kind,
        component=component.label + suffix,
        params=found.params(recipe, component),
        inputs={name: From(_maker(made, need, suffix), need.path)
                for name, need in found.needs(recipe).items()},
        source=reading.source, reads=reading.reads, locked=reading.locked,
    )


def _maker(made: Mapping[str, str], need: Need, suffix: str) -> str:
    """Returns the step that gave what is needed: of the size, if there is one for it."""
    wanted = f"@{size_text(need.size)}" if need.size else suffix
    return made.get(need.role + wanted, made[need.role])


def _of_bundle(recipe: Recipe, made: Mapping[str, Mapping[str, str]]) -> Iterator[Step]:
    """Yields the steps that are there once."""
    for kind in STAGES:
        found = stage(kind)
        if isinstance(found, BundleStage) and found.applies(recipe):
            yield Step(kind=kind, params=found.params(recipe), inputs=found.inputs(recipe, made),
                       facts=found.facts(recipe))
