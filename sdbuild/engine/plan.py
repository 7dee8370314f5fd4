"""From a recipe to the steps that make its bundle: a pure function."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

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

    def expect(self, names: Iterable[str]) -> None:
        """Makes sure that steps, and those that they need, can succeed, as far as the recipe alone
        tells.

        Raises:
            SDBuildError: one of them would fail.
        """
        wanted = {step.name: step for name in names for step in self.needed_by(name)}
        for step in wanted.values():
            step.stage.expect(self.recipe)


def plan(recipe: Recipe) -> Plan:
    """Returns the steps that make the recipe's bundle."""
    steps: dict[str, list[Step]] = {}
    made: dict[str, dict[str, str]] = {}
    components = (*recipe.components, RESOURCES)
    for component in components:
        made[component.label], steps[component.label] = {}, []
    for kind in STAGES:
        for component in components:
            steps[component.label] += _of_component(recipe, component, kind, made)
    found = [*chain.from_iterable(steps.values()), *_of_bundle(recipe, made)]
    return Plan(recipe=recipe, steps=_ordered({step.name: step for step in found}))


def _ordered(steps: Mapping[str, Step]) -> dict[str, Step]:
    """Returns the steps in their order, but each after those that it needs."""
    found: dict[str, Step] = {}

    def add(step: Step) -> None:
        if step.name not in found:
            for source in step.inputs.values():
                add(steps[source.step])
            found[step.name] = step

    for step in steps.values():
        add(step)
    return found


def _of_component(
    recipe: Recipe, component: Component, kind: str, made: Mapping[str, dict[str, str]]
) -> Iterator[Step]:
    """Yields the steps of a stage for one component; `made` maps each role of each component to the
    step that last gave it, of all sizes but the first with the size behind it."""
    found = stage(kind)
    if not isinstance(found, ComponentStage) or not found.applies(recipe, component):
        return
    first, *others = recipe.network.sizes_of(component) or (None,)
    for size in (first, *others) if found.is_sized else (first,):
        suffix = "" if size == first or size is None else f"@{size_text(size)}"
        step = _step(kind, recipe.at(size) if size else recipe, component, made, suffix)
        made[component.label][found.gives + suffix] = step.name
        yield step


def _step(
    kind: str, recipe: Recipe, component: Component, made: Mapping[str, Mapping[str, str]],
    suffix: str,
) -> Step:
    """Returns the step of a stage for a component, `suffix` for a size that is not the first."""
    found = stage(kind)
    assert isinstance(found, ComponentStage)
    reading = found.reading(recipe, component)
    needs = {**found.needs(recipe), **found.borrows(recipe, component)}
    return Step(
        kind=kind,
        component=component.label + suffix,
        params=found.params(recipe, component),
        inputs={name: From(_maker(made[need.component or component.label], need, suffix), need.path)
                for name, need in needs.items()},
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
