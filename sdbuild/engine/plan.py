"""From a recipe to the steps that make its bundle: a pure function, and the order of stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType

from sdbuild.engine.step import From, Step, stage
from sdbuild.families import Component
from sdbuild.recipe.recipe import Recipe

STAGES = (
    "download",   # checkpoints are verified before any work starts
    "merge",      # LoRAs change weights, so nothing after it knows that there were some
    "trace",      # needs only the architecture, so it is shared by every checkpoint of it
    "lower",      # so is this, the last stage that needs torch and coremltools' converter
    "convert",    # weights come in here, streamed
    "palettize",  # before chunk, so that chunks are balanced by the bytes that ship
    "chunk",      # copies blobs, so that another cut costs no palette
    "compile",    # per program, so after the cut
    "parity",     # what the compiled component does, measured against its original
)
"""What is done to each component, in this order."""

DRAWING = ("text_encoder", "unet", "vae_decoder")
"""The components without which no picture is drawn."""

RESOURCES = Component(name="resources", bundle_name="", folder="", inputs=(), outputs=())
"""Stands beside the components for what a bundle holds besides networks: tokenizer, scheduler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps of a recipe, each after those that it needs."""

    recipe: Recipe
    steps: Mapping[str, Step]

    def needed_by(self, name: str) -> list[Step]:
        """The steps that `name` is made from, itself last."""
        wanted = {name}
        for step in reversed(list(self.steps.values())):
            if step.name in wanted:
                wanted.update(source.step for source in step.inputs.values())
        return [step for step in self.steps.values() if step.name in wanted]


def plan(recipe: Recipe) -> Plan:
    """The steps that make the recipe's bundle."""
    steps: dict[str, Step] = {}
    compiled: dict[str, From] = {}
    for component in (*recipe.components, RESOURCES):
        made: dict[str, str] = {}
        for step in _chain(recipe, component, made):
            steps[step.name] = step
        if component is not RESOURCES:
            compiled[component.name] = From(made["compiled"])
    inputs = {"resources": From("download:resources"), **compiled}
    vae = next((c for c in recipe.components if c.folder == "vae"), None)
    if vae:
        inputs["latents"] = From(f"download:{vae.name}", "latents.json")
    bundle = Step(kind="bundle", params=stage("bundle").params(recipe), inputs=inputs,
                  facts={"variant": recipe.variant})
    steps[bundle.name] = bundle
    if compiled.keys() >= set(DRAWING):
        for step in _drawn(recipe, steps, compiled):
            steps[step.name] = step
    return Plan(recipe=recipe, steps=steps)


def _drawn(
    recipe: Recipe, steps: Mapping[str, Step], compiled: Mapping[str, From]
) -> Iterator[Step]:
    """The steps that draw the same pictures with the original and with the bundle's parts."""
    beside = {"resources": From("download:resources"),
              "latents": From("download:vae_decoder", "latents.json")}
    weights = {name: From(f"merge:{name}" if f"merge:{name}" in steps else f"download:{name}")
               for name in DRAWING}
    yield Step(kind="originals", params=stage("originals").params(recipe),
               inputs=weights | beside)
    parts = {name: compiled[name] for name in DRAWING}
    yield Step(kind="pictures", params=stage("pictures").params(recipe),
               inputs=parts | beside | {"originals": From("originals")})


def _chain(recipe: Recipe, component: Component, made: dict[str, str]) -> Iterator[Step]:
    """The steps of one component; `made` maps each role to the step that last gave it."""
    for kind in STAGES:
        module = stage(kind)
        if not module.applies(recipe, component):
            continue
        step = Step(
            kind=kind,
            component=component.name,
            params=module.params(recipe, component),
            inputs={name: _input(need, made) for name, need in _needs(module, recipe).items()},
            **(module.source(recipe, component) if hasattr(module, "source") else {}),
        )
        made[module.GIVES] = step.name
        yield step


def _needs(module: ModuleType, recipe: Recipe) -> Mapping[str, str | tuple[str, str]]:
    return module.needs(recipe) if hasattr(module, "needs") else module.NEEDS


def _input(need: str | tuple[str, str], made: Mapping[str, str]) -> From:
    role, path = (need, "") if isinstance(need, str) else need
    return From(made[role], path)
