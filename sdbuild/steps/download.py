"""download: a component's checkpoint, verified and in one form, whatever it came from.

Its artifact is what `sdbuild.checkpoints.normalized` says, or the files besides networks. A large
file of weights is virtual if the checkpoint is on the store's disk: hashed, not copied.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sdbuild.base.digest import sha256_file
from sdbuild.base.errors import DigestMismatch, SourceError
from sdbuild.checkpoints import RESOURCES, combine_errors, named, open_checkpoint
from sdbuild.checkpoints.normalized import ARCHITECTURE, LATENTS, WEIGHTS, encode
from sdbuild.checkpoints.packages import Packages, expect_packages
from sdbuild.checkpoints.resources import SCHEDULER, TOKENIZER_3, file_name
from sdbuild.engine.stage import FINISHED, VIRTUAL, ComponentStage, Job, Memory, Reading, Time
from sdbuild.families import Component
from sdbuild.mil.files.suffixes import PACKAGE
from sdbuild.recipe.recipe import Recipe
from sdbuild.store.scan import files

if TYPE_CHECKING:
    from sdbuild.checkpoints import Checkpoint
    from sdbuild.safetensors.tensors import Tensor

_SHOWN = 8
"""Words that a warning names."""


class Download(ComponentStage):
    """Takes a component's checkpoint, or what a bundle holds besides networks."""

    version = 5
    summary = "copy and verify the checkpoint of each component"
    memory = Memory(50_000_000)  # streams; two tokenizers' vocabularies
    time = Time(0.3, billion=5)  # from files of this machine
    gives = "checkpoint"

    def applies(self, recipe: Recipe, component: Component) -> bool:
        """Always."""
        return True

    def params(self, recipe: Recipe, component: Component) -> dict[str, Any]:
        """Returns the settings that determine which tensors are read, or what the scheduler's
        config says."""
        if component.folder and recipe.is_of_packages:
            return {FINISHED: component.bundle_name, "family": recipe.family.name}
        found: dict[str, Any] = {"prefixes": list(component.prefixes)} if component.folder else {}
        if component.folder and recipe.family.name != "sd":
            found["family"] = component.family or recipe.family.name
        is_declared = not component.folder or component.takes("prediction")
        if is_declared and recipe.sources.prediction_type:
            found["prediction_type"] = recipe.sources.prediction_type
        return found

    def reading(self, recipe: Recipe, component: Component) -> Reading:
        """Returns the location of the checkpoint, the parts of it that are read, its own first,
        and what must come of them."""
        source = recipe.sources.of_component(component)
        reads: tuple[str, ...] = (component.folder or component.name, *component.sidecars)
        if component.folder and recipe.is_of_packages:
            reads = (f"{recipe.network.attention}/{component.name}",)
        lock = recipe.sources.lock
        if lock is None:
            return Reading(source=source, reads=reads)
        pinned = replace(source, places=lock.pinned(source.places),
                         beside=lock.pinned(source.beside))
        return Reading(source=pinned, reads=reads, locked=lock.of(component.label))

    def may_be_virtual(self, params: Mapping[str, Any], path: str) -> bool:
        """Whether it is the file of weights, which are in the checkpoint too."""
        return path == WEIGHTS and FINISHED not in params

    def run(self, job: Job) -> dict[str, Any]:
        """Writes the component's architecture and weights, or the resources, from the first place
        that has what is wanted.

        Raises:
            SourceError: none has it; DigestMismatch if what each has is not what is locked.
        """
        problems = []
        for place in job.places:
            try:
                return _download_from(place, job)
            except SourceError as error:
                problems.append(error)
                for path in job.output.iterdir():
                    path.unlink()
        raise combine_errors(problems)


STAGE = Download()


def checkpoint_tensors(job: Job, name: str) -> dict[str, Tensor]:
    """Returns the tensors of an input by name; those of the checkpoint that `download` read, if
    their file is virtual.

    Raises:
        SourceError: they cannot be read.
    """
    from sdbuild.safetensors.tensors import table

    made = job.virtual.get(name)
    if made is None:
        return table([job.inputs[name] / WEIGHTS])
    checkpoint = open_checkpoint(made.places, dict(made.facts), made.config, made.beside)
    with named(checkpoint.place, made.config):
        return {tensor.name: tensor for tensor in _tensors(checkpoint, made)}


def _download_from(place: str, job: Job) -> dict[str, Any]:
    checkpoint = open_checkpoint([place], dict(job.facts), job.config, job.beside)
    facts: dict[str, Any] = {}
    with named(checkpoint.place, job.config):
        if RESOURCES in job.reads:
            facts = _resources(job, checkpoint)
        elif FINISHED in job.params:
            _package(job, expect_packages(checkpoint))
        else:
            facts = _component(job, checkpoint)
    if job.locked:
        _check_lock(checkpoint.place, job)
    return {**facts, **checkpoint.origin}


def _check_lock(place: str, job: Job) -> None:
    """Makes sure that what was written is what is locked."""
    part = job.reads[0]
    found = {path.relative_to(job.output).as_posix(): sha256_file(path)
             for path in files(job.output)}
    for name in sorted(found.keys() | job.locked.keys()):
        if found.get(name) != job.locked.get(name):
            raise DigestMismatch(
                f"{place}: {part}: {name} is {found.get(name, 'missing')}, "
                f"but {job.locked.get(name, 'missing')} is locked",
                hint="if another checkpoint is meant: sdbuild lock RECIPE",
                part=part, file=name, found=found.get(name), locked=job.locked.get(name),
            )


def _resources(job: Job, checkpoint: Checkpoint) -> dict[str, Any]:
    """Writes the files besides networks; the facts name the words that hosts do not read."""
    from sdbuild.checkpoints import sidecar_configs

    found = checkpoint.resources()
    resources = dict(found)
    scheduler = sidecar_configs.scheduler(resources, job.params)
    tokenizer = sidecar_configs.host_tokenizer(resources)
    sidecar_configs.check_tokenizer(resources, tokenizer)
    for name, content in resources.items():
        folder = name.rpartition("/")[0]
        if folder in ("", "scheduler", tokenizer.folder, TOKENIZER_3.folder):
            (job.output / file_name(name)).write_bytes(content)
    if "prediction_type" in job.params:
        path = job.output / file_name(SCHEDULER)
        path.write_text(json.dumps(scheduler, indent=2), "utf-8")
    unspoken = sidecar_configs.unspoken(found, tokenizer)
    return {"unspoken": unspoken[:_SHOWN]} if unspoken else {}


def _package(job: Job, packages: Packages) -> None:
    """Writes a finished model as a package of ours, and how the family's latents are scaled."""
    from sdbuild.checkpoints.normalize import latents
    from sdbuild.mil.edit.rewrite import write_same
    from sdbuild.mil.files.read import read_model

    [part] = job.reads
    with packages.reading(part, beside=job.output.parent) as model:
        write_same(read_model(model), job.output / f"{job.params[FINISHED]}{PACKAGE}")
    if part.partition("/")[2].startswith("vae_"):
        usual = latents("vae", {"_class_name": "AutoencoderKL"}, job.params["family"])
        (job.output / LATENTS).write_bytes(encode(usual or {}))


def _component(job: Job, checkpoint: Checkpoint) -> dict[str, Any]:
    from sdbuild.checkpoints import normalize
    from sdbuild.checkpoints.widths import check_widths
    from sdbuild.safetensors import tensors
    from sdbuild.safetensors.decode import expect_finite, expect_floats

    part = job.reads[0]
    found = normalize.architecture_of(checkpoint, job.reads, job.params)
    (job.output / ARCHITECTURE).write_bytes(encode(found))
    family = job.params.get("family", "sd")
    if latents := normalize.latents(part, checkpoint.config(part), family):
        (job.output / LATENTS).write_bytes(encode(latents))
    taken = _tensors(checkpoint, job)
    expect_floats(tensor for tensor in taken if tensor.name.endswith((".weight", ".bias")))
    check_widths(part, found, taken)
    smallest = job.resources.get("virtual_from_bytes")
    if smallest is None or sum(tensor.size_bytes for tensor in taken) < smallest:
        return {"tensors": tensors.write(job.output / WEIGHTS, taken, expect_finite)}
    digests, file = tensors.digests(taken, expect_finite)
    return {"tensors": digests, VIRTUAL: {WEIGHTS: file}}


def _tensors(checkpoint: Checkpoint, job: Job) -> list[Tensor]:
    """Returns the component's tensors, sorted by name."""
    from sdbuild.checkpoints import normalize

    part, prefixes = job.reads[0], tuple(job.params["prefixes"])
    tables = normalize.tensors(part, checkpoint.tensors(part).values())
    taken = [tensor for tensor in tables if tensor.name.startswith(prefixes)]
    if not taken:
        raise SourceError(
            f"{checkpoint.place}: {part}: no tensor of it"
            + (f" begins with {' or '.join(filter(None, prefixes))}" if any(prefixes) else ""),
            hint=f"its weights are those of another network than {part}", part=part,
        )
    return sorted(taken, key=lambda tensor: tensor.name)
