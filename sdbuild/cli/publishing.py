"""The commands `publish`, `pull` and `reproduce`: builds around the functions of
`sdbuild/publish/`."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.base.errors import RecipeError, Unreachable
from sdbuild.base.parsing import json_object, json_value, read_file, shown
from sdbuild.base.paths import real_path
from sdbuild.base.units import counted, size
from sdbuild.bundle.install import check_replaceable
from sdbuild.bundle.manifest import MANIFEST, load_bundle
from sdbuild.cli.api import run
from sdbuild.cli.format import relative
from sdbuild.cli.reporter import Before
from sdbuild.engine.build import Builder
from sdbuild.publish import licences, names
from sdbuild.publish.canonical import Canonical, built_from, canonical
from sdbuild.publish.card import CARD, Facts, Sum
from sdbuild.publish.tree import Tree, tree_of
from sdbuild.recipe.fields import VARIABLES
from sdbuild.recipe.project import Project
from sdbuild.recipe.recipe import Recipe
from sdbuild.recipe.settings import settings
from sdbuild.store.disk import exchange, guarded, make_folder, sweep

if TYPE_CHECKING:
    from sdbuild.publish.card import Section
    from sdbuild.publish.client import Repository
    from sdbuild.publish.fetched import Published
    from sdbuild.publish.upload import Change
    from sdbuild.recipe.catalogue import Variant

Say = Callable[[str], None]
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_MOST_PICTURES = 4


Planned = MutableMapping[str, tuple["Repository", str, Mapping[str, "Section"]]]
"""Repositories by name, as earlier variants of a dry run would leave them, each with its card and
its variants."""


def publish(
    name: str, words: Mapping[str, str], *, is_private: bool, is_dry: bool, say: Say,
    planned: Planned,
) -> dict[str, Any] | None:
    """Publishes the bundle of a recipe; what was done, None if the build failed.

    Args:
        planned: what a dry run of earlier variants would publish, added to.

    Raises:
        RecipeError: no repository can be called so, or the licence does not allow it.
        BundleError: hosts cannot use the bundle.
        SourceError: the Hub does not answer, or does not take it.
    """
    name = name.removeprefix("hub:")
    if not _NAME.fullmatch(name):
        raise RecipeError(f"{shown(name)}: expected owner/name", hint="sdbuild publish you/coreml-"
                          "dreamy creates it at huggingface.co/you/coreml-dreamy")
    with canonical(words) as (recipe, asked):
        if asked.sources.licence is not None:
            _check_licence(asked.sources.licence, is_private, say)  # before anything is built
        with bundle_of(recipe) as (bundle, builder):
            if bundle is None:
                return None
            return _published(name, recipe, asked, bundle, builder, is_private, is_dry, say,
                              planned)


def _check_licence(licence: str | None, is_private: bool, say: Say) -> None:
    """Says what is to be said of a licence.

    Raises:
        RecipeError: there is none, or it forbids that the bundle is published.
    """
    for line in licences.check(licence, is_private):
        say(line)


def expect_apart(variants: Iterable[Variant]) -> None:
    """Makes sure that variants are published in folders of their own: else each would replace the
    one before.

    Raises:
        RecipeError: two are not.
    """
    found: dict[object, Variant] = {}
    for variant in variants:
        if variant.recipe is not None:
            other = found.setdefault(names.Variant.planned(variant.recipe).place, variant)
            if other is not variant:
                raise RecipeError(
                    f"--matrix: {other.name} and {variant.name} would be published in one folder: "
                    "those of a repository differ in attention, size, bits and ControlNets",
                    hint="publish them in repositories of their own, with --only NAME")


@contextmanager
def bundle_of(recipe: Canonical) -> Iterator[tuple[Path | None, Builder]]:
    """The bundle of a recipe, laid out to read; None if it cannot be built."""
    builder = Builder.of(settings(recipe.words))
    if run(recipe.words, ("bundle",), 1, Before()).status:
        yield None, builder
        return
    store = builder.store
    with store.workspace("publish") as work:
        yield builder.deliver("bundle", lambda record: store.checkout(
            record, work / recipe.name)), builder


def _published(
    name: str, recipe: Canonical, asked: Recipe, bundle: Path, builder: Builder,
    is_private: bool, is_dry: bool, say: Say, planned: Planned,
) -> dict[str, Any]:
    from sdbuild.publish.card import sections
    from sdbuild.publish.upload import change, changed

    manifest = json_value((bundle / "manifest.json").read_bytes(), "manifest.json",
                          has_infinities=True)
    if asked.sources.licence is None:
        _check_licence(manifest["licence"], is_private, say)
    manifest["licence"] = asked.sources.licence or manifest["licence"]
    repository, before, variants = planned.get(name) or _as_it_is(name, is_dry, say)
    work = bundle.parent / "zips"
    tree = tree_of(bundle, name.partition("/")[2],
                   {folder: each.bits for folder, each in variants.items()}, work)
    pictures = _pictures(builder, tree, work)
    files = {**tree.files, **{path: file for path, (file, _) in pictures.items()}}
    sums = {**tree.sums, **{path: _sum(file) for path, (file, _) in pictures.items()}}
    facts = Facts(
        variant=tree.variant, folder=tree.folder, archive=tree.archive, manifest=manifest,
        recipe_name=recipe.name, recipe=recipe.text, files=sums, parity=_parity(builder),
        pictures={path: text for path, (_, text) in pictures.items()})
    tree = replace(tree, manifest=manifest, files=files, sums=sums)
    found = change(repository, tree, facts, before)
    for line in (*tree.warnings, *_tree_lines(name, tree, found)):
        say(line)
    page = ""
    if is_dry:
        card = found.card.decode()
        planned[name] = changed(repository, found, tree.sums), card, sections(card)
    elif found.added or found.gone:
        page = repository.write(found.added, found.gone, f"Publish {tree.folder}", is_private)
        say(page)
    return {"repository": name, "folder": tree.folder, "page": page, "is_dry_run": is_dry,
            "files": [{"path": path, "bytes": each.size, "sha256": each.sha256}
                      for path, each in sorted(tree.sums.items())],
            "added": sorted(found.added), "gone": list(found.gone)}


def _as_it_is(
    name: str, is_dry: bool, say: Say
) -> tuple[Repository, str, Mapping[str, Section]]:
    """Returns a repository, its card, and the variants in it; as if it were not there, if the Hub
    cannot be reached and nothing is to be uploaded."""
    from sdbuild.publish.client import Repository
    from sdbuild.publish.upload import published

    try:
        found = Repository(name)
        return found, *published(found)
    except Unreachable as error:
        if not is_dry:
            raise
        say(f"{error.message}: shown as for a new repository")
        return Repository(name, is_offline=True), "", {}


def _sum(path: Path) -> Sum:
    from sdbuild.base.digest import sha256_file

    return Sum(sha256_file(path), path.stat().st_size)


def _parity(builder: Builder) -> dict[str, dict[str, float]]:
    """Returns the PSNRs that were measured of the components; none if nobody checked them."""
    from sdbuild.steps.parity import PARITY

    found: dict[str, dict[str, float]] = {}
    for name in builder.plan.steps:
        kind, _, label = name.partition(":")
        record = builder.state(name).record if kind == "parity" else None
        if record is not None:
            measured = json_object(read_file(builder.file(record, PARITY)), PARITY,
                                   has_infinities=True)
            for sample in measured["samples"]:
                psnr = float("inf") if sample["psnr_db"] is None else sample["psnr_db"]
                outputs = found.setdefault(label, {})
                outputs[sample["output"]] = min(psnr, outputs.get(sample["output"], psnr))
    return found


def _pictures(builder: Builder, tree: Tree, work: Path) -> dict[str, tuple[Path, str]]:
    """Returns the images that the check drew with the bundle, and what they show; none if it did
    not."""
    from sdbuild.steps.pictures import PICTURES

    record = builder.state("pictures").record if "pictures" in builder.plan.steps else None
    if record is None or not builder.store.has_content(record):
        return {}
    made = builder.store.checkout(record, work / "pictures")
    drawn = json_value((made / PICTURES).read_bytes(), PICTURES)[:_MOST_PICTURES]
    start = tree.folder.rpartition("/")[0].replace("/", "_")
    return {f"images/{start}_{number}.png": (made / f"{number}.png", str(each["prompt"]))
            for number, each in enumerate(drawn, 1) if each["is_finite"]}


def _tree_lines(name: str, tree: Tree, found: Change) -> Iterator[str]:
    """Yields the files with their sizes, those of a model together, and what becomes of them."""
    yield name
    rows: dict[str, list[int]] = {}
    for path, each in tree.sums.items():
        inner = next((part for part in path.split("/") if part.endswith(".mlmodelc")), "")
        shown_path = path[:path.index(inner) + len(inner)] + "/" if inner else path
        state = rows.setdefault(shown_path, [0, 0])
        state[0] += each.size
        state[1] += path in found.added
    rows[CARD] = [len(found.card), int(CARD in found.added)]
    for path, (count, is_new) in sorted(rows.items()):
        yield f"  {size(count):>9}  {path}{'' if is_new else '  unchanged'}"
    for path in found.gone:
        yield f"  {'':>9}  {path}  deleted"
    added = sum(tree.sums[path].size for path in found.added if path in tree.sums)
    yield (f"{size(sum(each.size for each in tree.sums.values()))} in "
           f"{counted(len(tree.sums), 'file')}, {size(added)} to upload")


def pull(place: str, words: Mapping[str, str], say: Say) -> Path:
    """Fetches one variant of a repository; where it lies.

    Raises:
        BundleError: there is no such variant, or something else stands where it is wanted.
        DigestMismatch: a file is not as the card says.
        SourceError: the Hub does not have it.
    """
    from sdbuild.publish.fetched import OTHER, published_at

    found = published_at(place, _variant(words))
    project = Project.here()
    name = (f"{found.hub.place.partition('/')[2].partition('@')[0]}_"
            f"{found.section.folder.replace('/', '_')}")
    target = real_path(project.path(VARIABLES["bundle"], words) or project.bundles / name)
    check_replaceable(target)
    with guarded(target, OTHER):
        make_folder(target.parent)
        work = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        found.lay_out(work / "new")
        load_bundle(work / "new")
        with guarded(target, OTHER):
            exchange(work / "new", target, work / "old")
    finally:
        sweep(work)
    total = sum(found.section.files[path].size for path in found.own)
    say(f"{relative(target)}  {size(total)}, every file as the card says")
    return target


def reproduce(
    place: str, words: Mapping[str, str], places: Mapping[str, str], say: Say,
) -> dict[str, Any] | None:
    """Builds a variant from the recipe of its card and compares every file; None if the build
    failed.

    Args:
        places: where files that the card names are on this machine, by the recipe's field.

    Raises:
        BundleError: there is no such variant.
        SourceError: the Hub does not have it.
    """
    from sdbuild.publish.fetched import published_at

    found = published_at(place, _variant(words))
    with built_from(found.section.recipe_name, found.section.recipe, words) as recipe, \
            bundle_of(replace(recipe, words={**recipe.words, **places})) as (bundle, _):
        if bundle is None:
            return None
        repository = found.hub.place.partition("/")[2].partition("@")[0]
        tree = tree_of(bundle, repository, {found.section.folder: found.section.bits},
                       bundle.parent / "zips")
        different = {path: "differs" for path, each in tree.sums.items()
                     if found.section.files.get(path) != each}
        different |= {path: "is not made here" for path in found.section.files
                      if path not in tree.sums and not path.startswith("images/")}
        changed = {flaw.path: f"{flaw.what}, on the server" for flaw in found.flaws()}
        why = _why(found, tree) if different else []
    lines = [f"{path}  {what}" for path, what in sorted((different | changed).items())]
    for line in (*lines, *why):
        say(line)
    same = len(tree.sums.keys() - different.keys() - changed.keys())
    say(f"{counted(same, 'file')} the same, {len(lines)} different")
    return {"repository": found.hub.place, "folder": found.section.folder, "is_same": not lines,
            "same": same, "different": [{"path": path, "what": what} for path, what
                                        in sorted((different | changed).items())], "why": why}


def _why(found: Published, tree: Tree) -> list[str]:
    """Returns which ingredients of the steps differ, as the two manifests list them."""
    from sdbuild.reports.causes import differences

    path = f"{found.section.folder}/{MANIFEST}"
    theirs = json_object(read_file(found.file(path)), path, has_infinities=True)
    steps = {str(step.get("step")): step for step in theirs.get("made_from", ())
             if isinstance(step, dict)}
    lines = []
    for step in tree.manifest["made_from"]:
        before = steps.get(step["step"])
        if before is None:
            lines.append(f"{step['step']}: no such step then")
            continue
        keys = {"key", "output", "inputs", "step"}
        for part, name in differences(*({k: v for k, v in each.items() if k not in keys}
                                        for each in (before, step))):
            lines.append(f"{step['step']}: {part} {name} is another")
    return lines


def _variant(words: Mapping[str, str]) -> str | None:
    return words.get("variant")
