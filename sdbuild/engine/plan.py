"""From a recipe to the steps that make its bundle: a pure function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sdbuild.engine.stage import STAGES, BundleStage, ComponentStage, From, stage
from sdbuild.engine.step import Step
from sdbuild.families import Component
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
    """Yields the steps of one component; `made` maps each role to the step that last gave it."""
    for kind in STAGES:
        found = stage(kind)
        if not isinstance(found, ComponentStage) or not found.applies(recipe, component):
            continue
        reading = found.reading(recipe, component)
        step = Step(
            kind=kind,
            component=component.label,
            params=found.params(recipe, component),
            inputs={name: From(made[need.role], need.path)
                    for name, need in found.needs(recipe).items()},
            source=reading.source, reads=reading.reads, locked=reading.locked,
        )
        made[found.gives] = step.name
        yield step


def _of_bundle(recipe: Recipe, made: Mapping[str, Mapping[str, str]]) -> Iterator[Step]:
    """Yields the steps that are there once."""
    for kind in STAGES:
        found = stage(kind)
        if isinstance(found, BundleStage) and found.applies(recipe):
            yield Step(kind=kind, params=found.params(recipe), inputs=found.inputs(recipe, made),
                       facts=found.facts(recipe))
