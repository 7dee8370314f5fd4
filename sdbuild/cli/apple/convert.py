"""`sdbuild torch2coreml`: the flags of Apple's converter, its file names, our steps."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from sdbuild.base.errors import RecipeError
from sdbuild.base.paths import outside_path
from sdbuild.bundle.bundle_reader import open_bundle
from sdbuild.bundle.contract import violations
from sdbuild.checkpoints.t5_tokenizer import T5_FILE, t5_files
from sdbuild.cli.api import run
from sdbuild.cli.apple import named, names, packages
from sdbuild.cli.apple.flags import Given
from sdbuild.cli.apple.layout import FOREIGN, OTHER, Output
from sdbuild.cli.apple.programs import PARTS
from sdbuild.cli.apple.wanted import Wanted, refuse_unsupported, wanted
from sdbuild.cli.reporter import Before
from sdbuild.engine.build import Builder
from sdbuild.recipe.components import CONTROLLED
from sdbuild.recipe.recipe import Recipe
from sdbuild.recipe.settings import settings, store_folder
from sdbuild.recipe.text import text_of
from sdbuild.steps.bundle import T5
from sdbuild.store import Record, Store
from sdbuild.store.json_cache import Notes

Say = Callable[[str], None]
_TOKENIZER = ("vocab.json", "merges.txt")
_PAIR = "chunks_never_stand_beside_the_whole"


def convert(flags: Given, say: Say) -> int:
    """Converts what flags ask for into the folder that they name; the exit status.

    Raises:
        SDBuildError: something is not as the flags have it; says what.
    """
    refuse_unsupported(flags)
    output = Output(outside_path(flags.o, "-o"))
    asked = tuple(flag for flag in PARTS if flags.values[flag])
    nets = tuple(flags.convert_controlnet or ())
    if "convert_controlnet" in flags.explicit and not nets:
        raise RecipeError("--convert-controlnet: no ControlNet is named", hint="name some after "
                          "it: a repository of the Hub, or a folder")
    kept = tuple(_kept(output, flags, asked))
    if not (asked or nets or flags.quantize_nbits or flags.bundle_resources_for_swift_cli):
        raise RecipeError("nothing to convert", hint="--convert-unet --convert-text-encoder "
                          "--convert-vae-decoder converts what an image needs")
    output.expect_writable()
    status, builder = 0, None
    remaining = tuple(flag for flag in asked if flag not in kept)
    for flag in kept:
        say(f"--{flag.replace('_', '-')}: the package that is there is used; sdbuild did not make "
            "it")
    if remaining or nets:
        facts = Notes(Store(store_folder(flags.words)), "hub")
        found = wanted(flags, remaining, facts)
        status, builder = _build(flags, found, output, nets, say)
        if status and builder is None:
            return status
        if not found.has_checkpoint:
            builder = None
    _edit(flags, output, asked, say)
    if flags.bundle_resources_for_swift_cli:
        _bundle(flags, output, builder, nets, say)
    else:
        for name in packages.stale(output, flags.model_version, nets):
            say(f"{output.path(name)}: compiled from an earlier package; "
                "--bundle-resources-for-swift-cli compiles it again")
    return status


def _kept(output: Output, flags: Given, asked: Sequence[str]) -> list[str]:
    """Returns the flags whose packages are there and are not ours: they are used as they are, if
    they are what is asked for."""
    found = []
    for flag in asked:
        component = _component(flag, flags)
        name = names.package(flags.model_version, component) if component in names.NAMES else ""
        if name and output.state(name) == FOREIGN:
            packages.check_fits(output.path(name), flags)
            found.append(flag)
    return found


def _component(flag: str, flags: Given) -> str:
    is_controlled = flag == "convert_unet" and flags.unet_support_controlnet
    return CONTROLLED if is_controlled else PARTS[flag][0]


def _build(
    flags: Given, found: Wanted, output: Output, nets: tuple[str, ...], say: Say
) -> tuple[int, Builder | None]:
    """Makes the packages and puts them into the folder; the status, and the builder that did."""
    builder = Builder.of(settings(found.words))
    recipe = builder.plan.recipe
    for note in (*found.notes, *_prediction_notes(builder)):
        say(note)
    labels = [*found.components, *(c.label for c in recipe.components if c.instance)]
    if found.components:
        say(_as_recipe(flags, found, recipe))
    steps = {label: _package_step(builder, label) for label in labels}
    tasks = list(steps.values())
    if flags.bundle_resources_for_swift_cli and found.has_checkpoint:
        tasks.append("download:resources")
    built = run(found.words, tasks, 1, Before()) if tasks else None
    if built is not None and built.status:
        return built.status, None
    instances = dict(zip((c.label for c in recipe.components if c.instance), nets, strict=True))
    for label, step in steps.items():
        name = names.controlnet_package(instances[label]) if label in instances \
            else names.package(flags.model_version, label)
        is_new = _lay(builder, step, output, name)
        say(f"{output.path(name)}{'' if is_new else '  up to date'}")
    status = 0
    if flags.check_output_correctness:
        status = run(found.words, [f"parity:{label}" for label in labels], 1, Before()).status
        _say_parity(builder, labels, say)
    return status, builder


def _as_recipe(flags: Given, found: Wanted, recipe: Recipe) -> str:
    """Returns the equivalent recipe, and which components a bundle needs beside it."""
    chunks = {"chunk": "2" if flags.chunk_unet else "1"}
    missing = [name for name in recipe.family.drawing if name not in found.components
               and not (name == "unet" and CONTROLLED in found.components)]
    needs = f"; a bundle needs {', '.join(missing)} too" if missing else ""
    return f"# the same as a recipe{needs}\n{text_of(recipe, {**found.words, **chunks})}"


def _package_step(builder: Builder, label: str) -> str:
    return builder.plan.steps[f"compile:{label}"].inputs["package"].step


def _lay(builder: Builder, step: str, output: Output, name: str) -> bool:
    def put(record: Record) -> bool:
        (part,) = {entry.path.partition("/")[0] for entry in record.tree}
        return output.put(name, record.digest(),
                          lambda new: builder.store.checkout(record, new, part, OTHER))
    return builder.deliver(step, put)


def _say_parity(builder: Builder, labels: Sequence[str], say: Say) -> None:
    from sdbuild.reports.check import report

    records = {label: record for label in labels
               if (record := builder.state(f"parity:{label}").record) is not None}
    say(report(records, None, builder.store, builder.plan.recipe))


def _prediction_notes(builder: Builder) -> list[str]:
    recipe = builder.plan.recipe
    predicts = recipe.sources.prediction_type
    if predicts != "v_prediction" or recipe.network.prediction != "epsilon":
        return []
    return ["the U-Net predicts velocity, and is converted to predict noise, as Swift hosts need; "
            "prediction=checkpoint leaves it as Apple's Python pipeline takes it"]


def _edit(flags: Given, output: Output, asked: Sequence[str], say: Say) -> None:
    """Gives packages that lay there palettes, and cuts U-Nets in two."""
    model = flags.model_version
    if flags.quantize_nbits is not None:
        for component in ("text_encoder", "text_encoder_2", "unet", "refiner", CONTROLLED):
            name = names.package(model, component)
            if output.path(name).exists() and packages.palettize(
                    output, name, flags.quantize_nbits):
                say(f"{output.path(name)}  {flags.quantize_nbits} bits")
    if "convert_unet" not in asked:
        return
    for component in (_component("convert_unet", flags), "refiner"):
        name = names.package(model, component)
        if not output.path(name).exists():
            continue
        if not flags.chunk_unet:
            for part in packages.drop_stale_chunks(output, model, component):
                say(f"{output.path(part)}: removed, it was cut from another U-Net")
        elif packages.chunk(output, model, component):
            say(f"{output.path(name)}  cut in two")


def _bundle(
    flags: Given, output: Output, builder: Builder | None, nets: tuple[str, ...], say: Say
) -> None:
    """Lays `Resources` out, and says what hosts will not like of it."""
    for name in packages.bundle(output, flags.model_version, nets,
                                flags.words.get("compiler", "auto")):
        say(str(output.path(name)))
    resources = output.path(names.RESOURCES)
    if not resources.is_dir():
        raise RecipeError(f"{output.folder}: no package of {flags.model_version} in it, so there "
                          "is nothing to compile", hint="convert some with --convert-…")
    _lay_tokenizer(output, builder, flags, say)
    models = open_bundle(resources).models
    if {"TextEncoder", "VAEDecoder"} <= models.keys() and any(
            name.startswith(("Unet", "MultiModal")) for name in models):
        for violation in violations(resources):
            if violation.rule != _PAIR:
                say(str(violation))


def _lay_tokenizer(output: Output, builder: Builder | None, flags: Given, say: Say) -> None:
    """Puts the checkpoint's own tokenizer there; CLIP's where no checkpoint can be read."""
    from sdbuild.checkpoints.single_file import CLIP

    def put(record: Record) -> None:
        assert builder is not None
        for name in _TOKENIZER:
            source = builder.file(record, name)
            output.put(f"{names.RESOURCES}/{name}", record.digest(), partial(_copy_lines, source))
        if any(c.name == T5 for c in builder.plan.recipe.components):
            there = builder.file(record, T5_FILE) if record.part(T5_FILE) else Path(T5_FILE)
            for name, content in t5_files(there).items():
                output.put(f"{names.RESOURCES}/{name}", record.digest(),
                           partial(_write, content))

    if builder is not None:
        builder.deliver("download:resources", put)
        return
    if all(output.path(f"{names.RESOURCES}/{name}").exists() for name in _TOKENIZER):
        return
    with tempfile.TemporaryDirectory(prefix="sdbuild-") as work:
        own = named.tokenizer(named.resources(flags, say), Path(work))
        for name in _TOKENIZER:
            output.put(f"{names.RESOURCES}/{name}", "", partial(_copy_lines, (own or CLIP) / name))
    if own is None:
        say(f"{output.path(names.RESOURCES)}: CLIP's own tokenizer, as no checkpoint was read")


def _write(content: bytes, target: Path) -> None:
    target.write_bytes(content)


def _copy_lines(source: Path, target: Path) -> None:
    """Copies a file; its last line gets an end, without which Swift hosts drop it."""
    lines = source.read_bytes()
    target.write_bytes(lines if lines.endswith((b"\n", b"}")) else lines + b"\n")
