"""Recipes: which bundle is wanted. TOML and command-line variables in, frozen nouns out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sdbuild.base import apple
from sdbuild.base.errors import RecipeError
from sdbuild.base.filenames import normalized
from sdbuild.base.parsing import Fields, shown
from sdbuild.base.paths import outside_path, real_path
from sdbuild.base.suggestions import did_you_mean
from sdbuild.bundle.request import Request
from sdbuild.checkpoints import expand_user, fixed, is_hub
from sdbuild.checkpoints.single_file import SUFFIX
from sdbuild.families import FAMILIES, STABLE_DIFFUSION, Component, Family, Floor
from sdbuild.recipe import naming
from sdbuild.recipe.fields import (
    CHECK_FIELDS,
    DRAW_FIELDS,
    FLOOR_FIELD,
    MODEL_FIELD,
    QUANTS,
    RECIPE_FIELDS,
    TARGETS,
    check_variables,
    parse,
)
from sdbuild.recipe.finding import Found, find_recipe
from sdbuild.recipe.lockfile import Lock, parsed
from sdbuild.recipe.project import BUILT_IN, Project
from sdbuild.recipe.tables import check_keys, read, table_in, values_of

DEFAULTS: dict[str, Any] = {
    "batch": 2, "prediction": "epsilon", "attention": "original", "quant": "none",
    "palettize": ["text_encoder", "unet"], "chunk": 1, "target": "iOS16", "lower": "once",
    "compiler": "auto", "config": None, "vae": None, "lora": None,
    "prediction_type": None,
}
OF_CHECKPOINT = ("source", "config", "vae", "prediction_type")
"""The fields that say which checkpoint is built: given on the command line, the recipe's lock is of
another one and does not hold."""
_CHECK_DEFAULTS: dict[str, Any] = {
    "prompts": ["a photograph of a cat", "a bowl of fruit on a wooden table"],
    "accepts": None, "reason": "",
}
DRAW_DEFAULTS: dict[str, Any] = {
    "prompt": "a photograph of a cat", "negative": "", "seed": 1, "steps": 25, "guidance": 7.5,
    "scheduler": "dpm", "count": 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a checkpoint lies: places in the order in which they are tried.

    `config` is a folder that says what a single file does not, or empty. If it is of plain files,
    all of them are read.
    """

    places: tuple[str, ...]
    config: str = ""
    are_files: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """A LoRA that is merged into the checkpoint, and how strongly."""

    place: str
    strength: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The pictures by which a bundle is judged, prompt i with seed i; and the reason why palettes
    may break them, empty if they may not."""

    prompts: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A wanted bundle, and the pictures to draw with it.

    `asked` is what tells it from others of its name beside what all variants have: another source,
    other components, a recipe from elsewhere. `draw` holds the settings that the recipe names,
    which go into the bundle; `request` is what the command line makes of them, which does not.
    `lock` holds for the recipe's own source only. Components that the recipe gives no floor have
    their family's.
    `found` says which recipe was taken and why, where none was asked for; such a bundle has the
    name of its checkpoint.
    """

    name: str
    summary: str
    family: Family
    source: Source
    lock: Lock | None
    vae: Source | None
    loras: tuple[Lora, ...]
    prediction_type: str | None
    width_px: int
    height_px: int
    batch: int
    prediction: str
    components: tuple[Component, ...]
    attention: str
    nbits: int | None
    palettized: tuple[str, ...]
    chunks: int
    target: str
    lower: str
    compiler: str
    notes: tuple[str, ...]
    found: str
    asked: Mapping[str, Any]
    draw: Request
    request: Request
    check: Check
    floors: Mapping[str, Floor]

    @property
    def sources(self) -> tuple[Source, ...]:
        """All places that the recipe reads from."""
        return (self.source, self.vae) if self.vae else (self.source,)

    def source_of(self, component: Component) -> Source:
        """Where the component's checkpoint lies."""
        return self.vae if self.vae and component.folder == "vae" else self.source

    def nbits_of(self, component: Component) -> int | None:
        """The bits of the component's weights, or None for fp16."""
        return self.nbits if component.name in self.palettized else None

    def attention_of(self, component: Component) -> str:
        """The layout of the component's attention."""
        return self.attention if component.has_layouts else "original"

    def network_params(self, component: Component) -> dict[str, Any]:
        """What decides the component's network beside its architecture; what does not is left out,
        so that variants which differ in it share the network's steps."""
        found: dict[str, Any] = {name: getattr(self, name) for name in component.sizes}
        return found | ({"prediction": self.prediction} if component.is_denoiser else {})

    @property
    def is_palettized(self) -> bool:
        """Whether any of its components has palettes."""
        return any(self.nbits_of(component) for component in self.components)

    def checked_requests(self) -> list[dict[str, Any]]:
        """The pictures by which bundles are judged, drawn as the recipe draws."""
        return [asdict(replace(self.draw, prompt=prompt, seed=seed, count=1))
                for seed, prompt in enumerate(self.check.prompts, 1)]

    @property
    def variant(self) -> str:
        """A name that tells this bundle from other variants of the recipe."""
        quant = f"{self.nbits}bit" if self.nbits and self.palettized else "fp16"
        size = f"{self.width_px}x{self.height_px}"
        batch = "-batch1" if self.batch == 1 else ""
        chunks = f"-{self.chunks}chunks" if self.chunks > 1 else ""
        shown = {k: v for k, v in self.asked.items() if k != "source" or not self.found}
        return (f"{self.name}{naming.words(shown)}-{size}-{self.attention}-{quant}{batch}"
                f"{chunks}-{self.target}{naming.tag(self.asked)}")


def load(
    words: Mapping[str, str], project: Project | None = None,
    facts: MutableMapping[str, Any] | None = None,
) -> Recipe:
    """The recipe that the `name=value` words of a command line ask for, or that fits a `source`.

    Args:
        project: where it is found by name; the current folder's if None.
        facts: what is known of repositories of the Hub, which grows.

    Raises:
        RecipeError: an unknown recipe or variable, or a value that is not allowed; says where.
        SourceError: a source without a model cannot be read.
    """
    check_variables(words)
    project = project or Project.here()
    found = _found(words, project, {} if facts is None else facts)
    path, table = _base(words, project, found)
    tables = {"check", "draw", "floors", "lock"}
    known = {"summary", "family", *tables, *(field.name for field in RECIPE_FIELDS)}
    check_keys(table, known, str(path))
    family = _family(table, path)
    fields = values_of(RECIPE_FIELDS, DEFAULTS, table, words, str(path))
    draw = table_in(table, "draw", path)
    where = f"{path}: [draw]"
    check_keys(draw, {field.name for field in DRAW_FIELDS}, where)
    sources = _sources(fields, words, path.parent)
    recipe = Recipe(
        name=normalized((found and naming.source(sources["source"].places)) or path.stem),
        summary=str(table.get("summary", "")),
        family=family,
        **sources,
        lock=None if any(name in words for name in OF_CHECKPOINT)
        else parsed(table_in(table, "lock", path), f"{path}: [lock]"),
        prediction_type=fields["prediction_type"],
        width_px=fields["size"][0],
        height_px=fields["size"][1],
        batch=fields["batch"],
        prediction=fields["prediction"],
        components=_components(fields["components"], family, set() if "components" in words
                               or not found else found.lacks),
        attention=fields["attention"],
        nbits=fields["quant"],
        palettized=tuple(c.name for c in _components(fields["palettize"], family)),
        chunks=fields["chunk"],
        target=TARGETS[fields["target"]],
        lower=fields["lower"],
        compiler=apple.compiler(fields["compiler"]),
        notes=apple.notes(fields["compiler"]),
        found=found.because if found else "",
        asked=naming.asked(fields, sources, words,
                     None if found or is_named(path, project) else path),
        draw=Request(**values_of(DRAW_FIELDS, DRAW_DEFAULTS, draw, {}, where)),
        request=Request(**values_of(DRAW_FIELDS, DRAW_DEFAULTS, draw, words, where)),
        check=_check(table_in(table, "check", path), f"{path}: [check]"),
        floors=_floors(table_in(table, "floors", path), family, path),
    )
    _check_together(recipe)
    return recipe


def _found(
    words: Mapping[str, str], project: Project, facts: MutableMapping[str, Any]
) -> Found | None:
    """The recipe of a source that is given without a model."""
    if "source" not in words or project.setting(MODEL_FIELD, words) is not None:
        return None
    given = tuple(field for field in RECIPE_FIELDS if field.name in words)
    fields = {"config": None, "vae": None, "lora": None, "prediction_type": None, "size": None}
    fields |= values_of(given, {}, {}, words, "")
    source = _sources(fields, words, Path.cwd())["source"]
    return find_recipe(source.places, source.config, facts, size=fields["size"],
                       prediction_type=fields["prediction_type"])


def _base(
    words: Mapping[str, str], project: Project, found: Found | None
) -> tuple[Path, dict[str, Any]]:
    """The recipe's file and content. A checkpoint that no recipe is for has no file: its content is
    said to be in one that is called like its family."""
    if found and not found.model:
        family = STABLE_DIFFUSION
        components = [c.name for c in family.components]
        size = "{}x{}".format(*found.size or ())
        return BUILT_IN / family.name, {"family": family.name, "size": size,
                                        "components": components}
    model = found.model if found else words.get("model", project.default_model)
    path = find(parse(MODEL_FIELD, model, "on the command line"), project)
    return path, read(path)


def is_named(path: Path, project: Project) -> bool:
    """Whether a recipe is the one that its name alone finds."""
    found = project.recipe(path.stem)
    return found is not None and real_path(found) == real_path(path)


def find(model: str, project: Project) -> Path:
    """The file of the recipe that is called `model`, or that `model` names.

    Raises:
        RecipeError: there is none.
    """
    path = outside_path(expand_user(model), "model")
    if path.is_dir() and model not in project.names():
        raise RecipeError(f"model={model}: a folder, expected a recipe's name or its file",
                          hint="a checkpoint in a folder is source=FOLDER", model=model)
    if model.endswith(".toml"):
        if not path.is_file():
            raise RecipeError(f"model={model}: there is no such file: {path.absolute()}")
        return real_path(path)
    found = project.recipe(model)
    if found is None:
        names = project.names()
        raise RecipeError(
            f"unknown model {shown(model)}{did_you_mean(model, names)}",
            hint=f"the recipes are: {', '.join(names)}; a file of your own is model=FILE.toml",
            model=model,
        )
    return found


def _sources(
    fields: Mapping[str, Any], words: Mapping[str, str], folder: Path
) -> dict[str, Any]:
    """Where everything lies that comes from outside.

    A path is relative to where its user stands: the recipe in its `folder`, or the command line.
    """
    def absolute(name: str, place: str) -> str:
        if place.startswith("builtin:"):
            return str(BUILT_IN / place.removeprefix("builtin:"))
        found = fixed(place, Path.cwd() if name in words else folder)
        return found if is_hub(found) else str(outside_path(found, name))

    def places(name: str) -> tuple[str, ...]:
        return tuple(absolute(name, place) for place in fields[name] or ())

    config = absolute("config", fields["config"]) if fields["config"] else ""
    return {
        "source": Source(places=places("source"), config=config),
        "vae": Source(places=places("vae"), config=config) if fields["vae"] else None,
        "loras": tuple(
            Lora(place=absolute("lora", place), strength=strength)
            for place, strength in fields["lora"] or ()
        ),
    }


def _family(table: Mapping[str, Any], path: Path) -> Family:
    return FAMILIES[Fields(table, str(path), RecipeError).choice("family", tuple(FAMILIES))]


def _components(
    wanted: tuple[str, ...], family: Family, lacks: Collection[str] = ()
) -> tuple[Component, ...]:
    """The components of these names, without those in folders that a checkpoint lacks."""
    known = [component.name for component in family.components]
    for name in wanted:
        if name not in known:
            raise RecipeError(
                f"unknown component {name!r}{did_you_mean(name, known)}",
                hint=f"the components of {family.title} are: {', '.join(known)}",
            )
    return tuple(c for c in family.components if c.name in wanted and c.folder not in lacks)


def _check(table: Mapping[str, Any], where: str) -> Check:
    check_keys(table, {field.name for field in CHECK_FIELDS}, where)
    fields = values_of(CHECK_FIELDS, _CHECK_DEFAULTS, table, {}, where)
    if bool(fields["accepts"]) != bool(fields["reason"]):
        raise RecipeError(f"{where}: no {'reason' if fields['accepts'] else 'accepts'}, "
                          "expected accepts with a reason, or neither",
                          hint='accepts = "broken" and reason = "why" accept broken pictures')
    return Check(prompts=fields["prompts"], reason=fields["reason"])


def _floors(table: Mapping[str, Any], family: Family, path: Path) -> dict[str, Floor]:
    floors = {component.name: component.floor for component in family.components}
    for name, entry in table.items():
        where = f"{path}: [floors.{name}]"
        _components((name,), family)
        if not isinstance(entry, dict) or not entry.get("reason"):
            raise RecipeError(f"{where}: a floor has a reason, and a number for each quant")
        check_keys(entry, {"reason", *QUANTS}, where)
        floors[name] = Floor(
            by_quant={k: parse(FLOOR_FIELD, v, f"{where}.{k}") for k, v in entry.items()
                      if k != "reason"},
            reason=str(entry["reason"]),
        )
    return floors


def _check_together(recipe: Recipe) -> None:
    """Refuses what no field forbids alone."""
    places = [place for source in recipe.sources for place in source.places]
    if recipe.source.config and not any(place.endswith(SUFFIX) for place in places):
        raise RecipeError(
            f"config={recipe.source.config}: it says what a single file does not, and none is read",
            hint=f"leave config away, or take a {SUFFIX} file: source=FILE or vae=FILE",
        )
    if recipe.nbits == 3 and recipe.target != "iOS18":
        raise RecipeError(
            f"quant=3 with target={recipe.target}: palettes of 3 bits came with iOS 18",
            hint="take target=iOS18, or quant=4",
        )
