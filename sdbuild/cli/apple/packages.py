"""Palettizes, chunks and compiles existing packages, as Apple's converter does in its output
folder.

It takes packages of any tool as they are; so does this, but what it makes is never stale.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sdbuild.base.apple import compiler
from sdbuild.base.errors import RecipeError
from sdbuild.bundle.inferred import CELL_PX
from sdbuild.cli.apple import names
from sdbuild.cli.apple.flags import Given
from sdbuild.cli.apple.layout import FOREIGN, OURS, Output
from sdbuild.mil.files.suffixes import PACKAGE

if TYPE_CHECKING:
    from sdbuild.mil.files.package import Model

_SIZED = ("sample", "z", "x")
"""The inputs of denoisers and autoencoders whose height and width follow the latents'."""

_COLORS = 3


def check_fits(path: Path, flags: Given) -> None:
    """Makes sure that a package which is used as it is, is what flags ask for.

    Raises:
        RecipeError: it is of another layout, size, batch or number of bits.
        MILError: it cannot be read.
    """
    from sdbuild.mil.files.read import read_model

    model = read_model(path)
    for flag, found, expected in _claims(model, flags):
        if found != expected:
            raise RecipeError(
                f"{path}: it is there already and was not made by sdbuild; {flag} asks for "
                f"{expected}, and it has {found}",
                hint="move it away, so that it is converted again")


def _claims(model: Model, flags: Given) -> Iterator[tuple[str, object, object]]:
    """Yields what flags that are there ask of a package: the flag, what it has, what it should."""
    shape = next((shape for name, shape in model.input_shapes.items()
                  if name in _SIZED and len(shape) == 4), None)
    if shape is None:
        return
    batch, channels, rows, columns = shape
    cell_px = CELL_PX if channels == _COLORS else 1
    if flags.latent_h is not None:
        yield "--latent-h", rows // cell_px, flags.latent_h
    if flags.latent_w is not None:
        yield "--latent-w", columns // cell_px, flags.latent_w
    if "sample" not in model.input_shapes:
        return
    if flags.unet_batch_one:
        yield "--unet-batch-one", f"a batch of {batch}", "a batch of 1"
    if "attention_implementation" in flags.explicit:
        block = next(iter(model.program.functions.values())).block
        has_einsum = any(op.type == "einsum" for op in block.operations)
        is_split = flags.attention_implementation != "ORIGINAL"
        words = {True: "split attention", False: "original attention"}
        yield "--attention-implementation", words[has_einsum], words[is_split]


def palettize(output: Output, name: str, nbits: int) -> bool:
    """Gives a package that is there palettes of so many bits; says whether it did: one that has
    them stays.

    Raises:
        RecipeError: it has palettes of other bits, which are not undone.
    """
    from sdbuild.mil.compress.palettize import palettize as compress
    from sdbuild.mil.inspect.summary import read_models, weights

    path = output.path(name)
    own = {weight.bits for model in read_models(path) for weight in weights(model)
           if weight.bits < 16}
    if own == {nbits}:
        return False
    if own:
        raise RecipeError(
            f"{path}: its weights have {', '.join(map(str, sorted(own)))} bits, and what they were "
            f"is lost, so they cannot get {nbits}",
            hint="convert it again with --convert-… beside --quantize-nbits")
    source = output.path(f".{name}.fp16")
    path.rename(source)
    try:
        output.put(name, "", lambda new: compress(source, new, nbits=nbits))
    except BaseException:
        if not path.exists():
            source.rename(path)
        raise
    shutil.rmtree(source)
    return True


def chunk(output: Output, model: str, component: str) -> bool:
    """Cuts the package of a denoiser in two; says whether the chunks are new."""
    whole = names.package(model, component)
    parts = [names.package(model, component, number) for number in (1, 2)]
    return cut(output, output.path(whole), output.digest(whole), parts)


def cut(output: Output, source: Path, made_from: str, parts: Sequence[str]) -> bool:
    """Cuts a package into parts of these names, or, of one name, into a package that runs both;
    says whether they are new.

    Args:
        made_from: the package's digest.
    Raises:
        BundleError: others put something of such a name there.
        MILError: it cannot be cut.
    """
    from sdbuild.mil.edit.chunk import chunk as cut_into
    from sdbuild.mil.edit.pipeline import chunk_into_pipeline

    if all(output.source(part) == made_from for part in parts):
        return False
    for part in parts:
        output.refuse_foreign(part)
    made = [output.path(f".{part}") for part in parts]
    for path in made:
        shutil.rmtree(path, ignore_errors=True)
    try:
        if len(made) == 1:
            chunk_into_pipeline(source, made[0], 2)
        else:
            cut_into(source, made)
        for part, path in zip(parts, made, strict=True):
            output.put(part, made_from, path.rename)
    finally:
        for path in made:
            shutil.rmtree(path, ignore_errors=True)
    return True


def drop_stale_chunks(output: Output, model: str, component: str) -> list[str]:
    """Removes chunks that were cut from another package than the one that is there now, which
    hosts would run in its place; their names."""
    whole = names.package(model, component)
    stale = [part for part in (names.package(model, component, n) for n in (1, 2))
             if output.path(part).exists() and output.source(part) != output.digest(whole)]
    for part in stale:
        output.remove(part)
    return stale


def bundle(output: Output, model: str, nets: tuple[str, ...], wanted: str) -> list[str]:
    """Compiles every package of the model that is there, and the ControlNets, into `Resources`;
    the names of what is new there.

    Raises:
        BundleError: a compiled model would be replaced that sdbuild did not make.
    """
    made = []
    for source, target in _pairs(model, nets):
        if not output.path(source).exists():
            if output.state(target) == OURS:
                output.remove(target)
            continue
        made_from = output.digest(source)
        if output.source(target) == made_from or (
                output.state(source) == output.state(target) == FOREIGN):
            continue
        output.refuse_foreign(target)
        output.put(target, made_from, partial(
            _compile, output.path(source), name=Path(target).stem, wanted=wanted,
            is_linked=output.state(source) == OURS))
        made.append(target)
    return made


def stale(output: Output, model: str, nets: tuple[str, ...]) -> list[str]:
    """Returns the names of compiled models that sdbuild made from an earlier package than the one
    that is there now."""
    return [target for source, target in _pairs(model, nets)
            if output.path(source).exists()
            and output.source(target) not in ("", output.digest(source))]


def _pairs(model: str, nets: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yields the name of each package that there may be, and of what it is compiled to."""
    for component in names.NAMES:
        for chunk in (0, 1, 2):
            yield names.package(model, component, chunk), names.compiled(component, chunk)
    for net in nets:
        yield names.controlnet_package(net), names.compiled_controlnet(net)


def _compile(source: Path, target: Path, *, name: str, wanted: str, is_linked: bool) -> None:
    """Writes the compiled model, by Apple's compiler where that is wanted and there."""
    from sdbuild.engine.stage import Job, stage
    from sdbuild.mil.compile.compile import compile_package

    chosen = compiler(wanted)
    if chosen == "portable":
        compile_package(source, target, name=name, is_linked=is_linked)
        return
    work = target.parent / "apple"
    shutil.copytree(source, work / "in" / f"{name}{PACKAGE}")
    (work / "out").mkdir()
    stage("compile").run(Job(params={"compiler": chosen}, inputs={"package": work / "in"},
                             output=work / "out"))
    next((work / "out").iterdir()).rename(target)
