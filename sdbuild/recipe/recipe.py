"""Recipes: which bundle is wanted. TOML and command-line variables in, frozen nouns out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sdbuild.base.errors import RecipeError
from sdbuild.base.filenames import normalized
from sdbuild.base.parsing import Fields
from sdbuild.bundle.request import Request
from sdbuild.families import FAMILIES, Component, Family
from sdbuild.families.nouns import size_text
from sdbuild.recipe import naming
from sdbuild.recipe.allotment import Allotment
from sdbuild.recipe.calibration import FIRST_SEED, prompts_in
from sdbuild.recipe.checking import Check
from sdbuild.recipe.components import known_components, with_controlnets
from sdbuild.recipe.fields import (
    DRAW_FIELDS,
    INPUT_FIELDS,
    MODEL_FIELD,
    OF_CHECKPOINT,
    PACKAGES,
    RECIPE_FIELDS,
    check_variables,
    parse,
)
from sdbuild.recipe.finding import Found, find_recipe
from sdbuild.recipe.finished import check_fields, kept_of
from sdbuild.recipe.lockfile import Lock, parsed
from sdbuild.recipe.matrix import Matrix
from sdbuild.recipe.network import Network
from sdbuild.recipe.packaging import Packaging
from sdbuild.recipe.project import BUILT_IN, Project
from sdbuild.recipe.sources import ELSEWHERE, Sources
from sdbuild.recipe.tables import check_keys, read, table_in, values_of

_TABLES = ("check", "draw", "floors", "lock", "matrix")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A wanted bundle, and the pictures to draw with it.

    `asked` is what tells it from others of its name beside what all variants have: another source,
    other components, a recipe from elsewhere. `file` is where it stands, None if it has none, and
    `model` its name, or that of a family whose defaults hold for a checkpoint that no recipe is
    for. `found` says which recipe was taken and why, where none was asked for; such a bundle has
    the name of its checkpoint. `draw` holds
    the settings that the recipe names, which go into the bundle; `request` is what the command
    line makes of them, which does not. `calibration` are the prompts of calibration, none where
    there is none.
    """

    name: str
    summary: str
    family: Family
    components: tuple[Component, ...]
    model: str
    file: Path | None
    found: str
    asked: Mapping[str, Any]
    sources: Sources
    network: Network
    packaging: Packaging
    draw: Request
    request: Request
    check: Check
    calibration: tuple[str, ...]

    def at(self, size: tuple[int, int]) -> Recipe:
        """Returns the same recipe, its networks of one of its sizes."""
        return replace(self, network=self.network.at(size))

    def component(self, label: str) -> Component:
        """Returns the component whose steps are called so."""
        return next(found for found in self.components if found.label == label)

    @property
    def can_generate(self) -> bool:
        """Whether its bundle has all components that generating an image needs."""
        needed = self.family.drawing
        return bool(needed) and {c.name for c in self.components} >= set(needed)

    def checked_requests(self) -> list[dict[str, Any]]:
        """Returns the pictures by which bundles are judged, drawn as the recipe draws."""
        return [replace(self.draw, prompt=prompt, seed=seed, count=1).settings()
                for seed, prompt in enumerate(self.check.prompts, 1)]

    @property
    def is_of_packages(self) -> bool:
        """Whether its source is finished models, of which nothing is converted."""
        return self.packaging.lower == PACKAGES

    def calibration_requests(self) -> list[dict[str, Any]]:
        """Returns the images on whose way palettes are calibrated, made as the recipe makes
        them."""
        return [replace(self.draw, prompt=prompt, seed=seed, count=1).settings()
                for seed, prompt in enumerate(self.calibration, FIRST_SEED)]

    def with_lock(self, lock: Lock | None) -> Recipe:
        """Returns the same recipe with another lock."""
        return replace(self, sources=replace(self.sources, lock=lock))

    @property
    def variant(self) -> str:
        """A name that tells this bundle from other variants of the recipe."""
        shown = {k: v for k, v in self.asked.items() if k != "source" or not self.found}
        batch = "-batch1" if self.network.batch == 1 else ""
        return (f"{self.name}{naming.words(shown)}-{self.network.words}-"
                f"{self.packaging.quant_word}{batch}{self.packaging.chunks_word}-"
                f"{self.packaging.target}{naming.tag(self.asked)}")


def load(
    words: Mapping[str, str], project: Project | None = None,
    facts: MutableMapping[str, Any] | None = None,
) -> Recipe:
    """Returns the recipe that the `name=value` words of a command line ask for, or that fits a
    `source`.

    Args:
        project: the folders in which names are looked up; the current one's if None.
        facts: a cache of facts about repositories of the Hub, added to.

    Raises:
        RecipeError: an unknown recipe or variable, or a value that is not allowed; says where.
        SourceError: a source without a model cannot be read.
    """
    check_variables(words)
    project, facts = project or Project.here(), {} if facts is None else facts
    found = _found(words, project, facts)
    path, table = _base(words, project, found)
    check_keys(table, {"summary", "family", *_TABLES, *(f.name for f in RECIPE_FIELDS)}, str(path))
    family = FAMILIES[Fields(table, str(path), RecipeError).choice("family", tuple(FAMILIES))]
    fields = values_of(RECIPE_FIELDS, table, words, str(path))
    sources = Sources.of(fields, words, path.parent, _lock(table, words, path))
    components = known_components(fields["components"], family)
    if found and "components" not in words:
        components = tuple(c for c in components if c.folder not in found.lacks)
    components = with_controlnets(components, sources.controlnets, family)
    check_fields(fields, components, found.fields if found else _kept(
        fields, sources, components, facts))
    sources.check_places(components, family)
    elsewhere = None if found or project.finds(path) else path
    network, packaging = Network.of(fields, family), Packaging.of(
        fields, family, Allotment.of(fields, words, path.parent))
    _check_functions(network, packaging)
    packaging.check_allotted(components, len(network.sizes))
    packaging.check_activations(components, family, len(network.sizes))
    needs_prompts = any(packaging.needs_prompts(component) for component in components)
    return Recipe(
        name=normalized((found and naming.source(sources.checkpoint.places)) or path.stem),
        summary=str(table.get("summary", "")),
        family=family,
        components=components,
        model=path.stem,
        file=None if found and not found.model else path,
        found=found.because if found else "",
        asked=naming.asked(fields, sources, words, elsewhere),
        sources=sources,
        network=network,
        packaging=packaging,
        draw=_request(table, {}, path, family),
        request=_request(table, words, path, family),
        check=Check.of(table, family, path),
        calibration=prompts_in(fields["calibrate"], words, path.parent)
        if needs_prompts else (),
    )


def _kept(
    fields: Mapping[str, Any], sources: Sources, components: Iterable[Component],
    facts: MutableMapping[str, Any],
) -> dict[str, Any]:
    """Returns the palettes that finished packages come with, where a recipe names packages."""
    if fields["lower"] != PACKAGES:
        return {}
    return kept_of(sources.checkpoint.places, facts, fields["attention"],
                   [component.name for component in components])


def _check_functions(network: Network, packaging: Packaging) -> None:
    if network.sizes and packaging.target != "iOS18":
        sizes = ",".join(map(size_text, network.sizes))
        raise RecipeError(
            f"size={sizes} with target={packaging.target}: models that have a function for each "
            "size came with iOS 18",
            hint=f"use target=iOS18, or build a bundle for each size, --matrix size={sizes}: they "
                 "share their weight files on the disk")


def matrix_of(
    words: Mapping[str, str], project: Project, facts: MutableMapping[str, Any]
) -> Matrix:
    """Returns the matrix of the recipe that `load` would take, empty if it has none.

    Raises:
        RecipeError: no such recipe, or its matrix is not what it may be; says where.
        SourceError: a source without a model cannot be read.
    """
    path, table = _base(words, project, _found(words, project, facts))
    return Matrix.of(table["matrix"], path.parent, f"{path}: [matrix]") \
        if "matrix" in table else Matrix()


def _found(
    words: Mapping[str, str], project: Project, facts: MutableMapping[str, Any]
) -> Found | None:
    """Returns the recipe of a source that is given without a model; a project's default is none
    that is given."""
    if "source" not in words or project.names_model(words):
        return None
    given = tuple(field for field in RECIPE_FIELDS if field.name in words)
    fields: dict[str, Any] = dict.fromkeys(
        ("config", *ELSEWHERE, "lora", "embedding", "controlnet", "prediction_type", "licence",
         "size", "attention"))
    fields |= values_of(given, {}, words, "")
    source = Sources.of(fields, words, Path.cwd()).checkpoint
    sizes = fields["size"] or (None,)
    return find_recipe(source.places, source.config, facts, size=sizes[0],
                       prediction_type=fields["prediction_type"], attention=fields["attention"])


def _base(
    words: Mapping[str, str], project: Project, found: Found | None
) -> tuple[Path, dict[str, Any]]:
    """Returns the recipe's file and content. A checkpoint that no recipe is for has no file: its
    content is said to be in one that is called like its family."""
    if found and not found.model:
        family = FAMILIES[found.family]
        components = [c.name for c in family.components if not c.comes_with]
        own = found.fields or {"size": "{}x{}".format(*found.size or ()), "components": components}
        return BUILT_IN / family.name, {"family": family.name, **own}
    model = found.model if found else words.get("model", project.default_model)
    path = project.find(parse(MODEL_FIELD, model, "on the command line"))
    return path, read(path)


def _lock(table: Mapping[str, Any], words: Mapping[str, str], path: Path) -> Lock | None:
    if any(name in words for name in OF_CHECKPOINT):
        return None
    return parsed(table_in(table, "lock", path), f"{path}: [lock]")


def _request(
    table: Mapping[str, Any], words: Mapping[str, str], path: Path, family: Family
) -> Request:
    where = f"{path}: [draw]"
    draw = table_in(table, "draw", path)
    check_keys(draw, {field.name for field in DRAW_FIELDS}, where)
    draw = {"scheduler": family.scheduler, **draw}
    return Request(**values_of((*DRAW_FIELDS, *INPUT_FIELDS), draw, words, where))
