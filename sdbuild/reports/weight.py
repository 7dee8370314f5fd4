"""The way of one weight: from its checkpoint to the bytes in the bundle.

Told from records, their facts and the artifacts in the store, or a shared one; nothing is made for
it. What each constant is called stays the same from convert on, so it is looked up by its name in
each program.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from sdbuild.base.errors import MissingArtifact, RecipeError, StepError
from sdbuild.base.suggestions import did_you_mean
from sdbuild.checkpoints.normalized import WEIGHTS
from sdbuild.engine.build import Builder
from sdbuild.engine.virtual import may_be_virtual
from sdbuild.families import Component
from sdbuild.mil.files.suffixes import COMPILED, ROOT
from sdbuild.models.parameters import parameter_of
from sdbuild.recipe.recipe import Recipe
from sdbuild.store import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorLocation:
    """Bytes of the weight in a file of an artifact: `part` is all of it, or its indices or table.

    Without an offset it is written in the program itself.

    Units:
        offset, size_bytes: of the data; record_offset: what the program refers to.
    """

    file: str
    part: str
    dtype: str
    shape: tuple[int, ...]
    offset: int | None = None
    size_bytes: int
    record_offset: int | None = None

    def __str__(self) -> str:
        kind = f"{self.dtype} {list(self.shape)}"
        if self.offset is None:
            return f"{self.part}: {kind} in the program {self.file}"
        return f"{self.part}: {self.size_bytes} bytes at {self.offset} of {self.file}, {kind}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """The weight after one step; `says` is for people, `facts` for programs."""

    step: str
    says: str
    places: tuple[TensorLocation, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def component_of(recipe: Recipe, name: str) -> Component:
    """Returns the recipe's component of that name.

    Raises:
        RecipeError: it has none.
    """
    known = {component.label: component for component in recipe.components}
    if name not in known:
        raise RecipeError(f"unknown component {name!r}{did_you_mean(name, known)}",
                          hint=f"the recipe's components are: {', '.join(known)}")
    return known[name]


def follow(builder: Builder, component: Component, tensor: str) -> list[Stop]:
    """Returns the way of a checkpoint's tensor, as far as it is made.

    Raises:
        RecipeError: the component's checkpoint has no such tensor.
        StepError: the checkpoint is not downloaded yet.
    """
    states = builder.states(["bundle"])
    download = states[f"download:{component.label}"].record
    if download is None:
        raise StepError(f"download:{component.label} is not made yet",
                        hint=f"sdbuild build download:{component.label}")
    tensors = download.facts.get("tensors")
    if tensors is None:
        raise RecipeError(f"{component.name} began as a finished package, expected a checkpoint: "
                          "only conversion gives tensors other names",
                          hint="sdbuild mil weights PACKAGE lists its constants")
    if tensor not in tensors:
        raise RecipeError(f"{component.name} has no tensor {tensor!r}"
                          f"{did_you_mean(tensor, tensors)}",
                          hint=f"it has {len(tensors)}, the first is {next(iter(tensors))}")
    way = _Way(builder, component, tensor)
    found = list(way.from_checkpoint(download))
    for step in builder.plan.needed_by("bundle"):
        if (step.kind in _STOPS and step.component == component.label) or step.kind == "bundle":
            record = states[step.name].record
            if record is None:
                found.append(Stop(step=step.name, says="not made yet"))
                continue
            try:
                found += _STOPS[step.kind](way, record)
            except MissingArtifact:
                found.append(_gone(step.name))
                way.is_lost = not way.is_named
            if way.is_unused or way.is_lost:
                break
    return found


def _gone(step: str) -> Stop:
    return Stop(step=step, says="made, but its files are not in the store; to make them again: "
                                f"sdbuild forget {step}, then sdbuild build {step}")


class _Way:
    """A weight on its way; knows what it is called by now."""

    def __init__(self, builder: Builder, component: Component, tensor: str) -> None:
        self.is_unused = self.is_lost = False
        self._builder = builder
        self._component = component
        self._tensor = tensor
        self._parameter = parameter_of(component, tensor)
        self._offset: int | None = None
        self._name = ""
        self._places: tuple[TensorLocation, ...] = ()

    @property
    def is_named(self) -> bool:
        """Whether it can be found from here on."""
        return bool(self._name)

    def from_checkpoint(self, record: Record) -> Iterator[Stop]:
        """Yields the tensor's origin, and its position in the download."""
        from sdbuild.safetensors.tensors import table

        digest = record.facts["tensors"][self._tensor]
        read = record.ingredients["source"]
        sources = {name: d for name, d in read.items() if name.endswith(".safetensors")} or read
        files = ", ".join(f"{name} (digest {found})" for name, found in sources.items())
        yield Stop(step="checkpoint", says=files, facts={"files": sources})
        says = f"its bytes have the digest {digest}"
        try:
            file = self._builder.file(record, WEIGHTS)
        except MissingArtifact:
            is_there = may_be_virtual(self._builder.plan.steps[record.step], WEIGHTS)
            yield Stop(step=record.step, says=f"{says}; they are read where the checkpoint is",
                       facts={"digest": digest}) if is_there else _gone(record.step)
            return
        found = table([file])[self._tensor]
        yield Stop(
            step=record.step, says=says, facts={"digest": digest},
            places=(TensorLocation(
                file=WEIGHTS, part="weight", dtype=found.dtype, shape=found.shape,
                offset=found.start, size_bytes=found.size_bytes),),
        )

    def lower(self, record: Record) -> Iterator[Stop]:
        """Yields the constant of the lowered program that is bound to the parameter."""
        from sdbuild.lowering.lowered import BINDINGS, read_bindings

        _, bindings = read_bindings(self._builder.file(record, BINDINGS))
        found = [binding for binding in bindings if binding.parameter == self._parameter]
        if not found:
            self.is_unused = True
            yield Stop(step=record.step, says="unused: the network has no such parameter")
            return
        (binding,) = found
        self._offset, self._name = binding.offset, binding.value or ""
        turned = ", transposed" if binding.is_transposed else ""
        where = f"the constant {self._name}" if self._name else f"the blob at {self._offset}"
        yield Stop(
            step=record.step, says=f"the parameter {self._parameter} is {where}{turned}",
            facts={"parameter": self._parameter, "offset": self._offset, "value": binding.value,
                   "is_transposed": binding.is_transposed},
        )

    def convert(self, record: Record) -> Iterator[Stop]:
        """Yields its position in the package."""
        if self._offset is None and not self._name:
            yield Stop(step=record.step,
                       says="coremltools converted directly; lower=once reports every weight")
            return
        yield self._stop(record, "cast to the program's type")

    def pack(self, record: Record) -> Iterator[Stop]:
        """Yields its bits, and the error of packing it."""
        reports = [r for r in record.facts["tensors"] if r["name"] == self._name]
        if not reports:
            yield self._stop(record, "as it was: too small to pack, or left in fp16")
            return
        (report,) = reports
        lost = f"an error of {report['rms_error']:.3g} (rms), at most {report['max_error']:.3g}, " \
               f"{report['snr_db']:.1f} dB below the weight" if report["max_error"] else \
               "nothing is lost"
        yield self._stop(record, f"{report['bits']} bits: {lost}", report)

    def copy(self, record: Record) -> Iterator[Stop]:
        """Yields its position after a step that changes no weight."""
        yield self._stop(record, "the same bytes")

    def bundle(self, record: Record) -> Iterator[Stop]:
        """Yields its position in the bundle, which holds the compiled models as they are."""
        held = {entry.path for entry in record.tree}
        places = tuple(place for place in self._places if place.file in held)
        yield Stop(step=record.step, says="the same bytes", places=places)

    def _stop(self, record: Record, says: str, facts: Mapping[str, Any] | None = None) -> Stop:
        self._places = tuple(self._find(record))
        return Stop(step=record.step, says=f"{self._name}: {says}", places=self._places,
                    facts={"constant": self._name, **(facts or {})})

    def _find(self, record: Record) -> Iterator[TensorLocation]:
        """Yields the places of the weight in the models of an artifact."""
        from sdbuild.mil.ir.traverse import walk

        models = {entry.path.partition("/")[0] for entry in record.tree}
        for model in sorted(models):
            for operation in walk(_program(self._builder, record, model).main.block):
                if self._is_it(operation):
                    yield from _places(self._builder, record, model, operation)

    def _is_it(self, operation: Any) -> bool:
        """Whether an operation gives the weight; learns its name from its offset."""
        name = operation.outputs[0].name if operation.outputs else ""
        if not self._name and operation.type == "const":
            data = operation.attributes["val"].data
            self._name = name if getattr(data, "offset", None) == self._offset else ""
        return bool(self._name) and name in (
            self._name, f"{self._name}_palettized", f"{self._name}_quantized")


_STOPS = {"lower": _Way.lower, "convert": _Way.convert, "assign": _Way.pack,
          "palettize": _Way.pack, "quantize": _Way.pack,
          "chunk": _Way.copy, "compile": _Way.copy, "bundle": _Way.bundle}


def _program(builder: Builder, record: Record, model: str) -> Any:
    """Returns the program of a package or a compiled model in an artifact."""
    if model.endswith(COMPILED):
        from sdbuild.mil.files.compiled import PROGRAM_FILE
        from sdbuild.mil.text.parse import parse_program

        text = builder.file(record, f"{model}/{PROGRAM_FILE}").read_text("utf-8")
        return parse_program(text, model)
    from sdbuild.mil.files.package import SPEC_FILE, read_spec
    from sdbuild.mil.ir.decode import decode_program

    file = builder.file(record, f"{model}/{ROOT}/{SPEC_FILE}")
    return decode_program(read_spec(file).mlProgram)


def _places(
    builder: Builder, record: Record, model: str, operation: Any
) -> Iterator[TensorLocation]:
    """Yields the places of the values that an operation holds."""
    from sdbuild.mil.files.blob import BlobReader, written_record
    from sdbuild.mil.files.package import MODEL_PATH
    from sdbuild.mil.ir.program import Blob, Value

    bound = [(k, b) for k, bs in operation.inputs.items() for b in bs if isinstance(b, Value)]
    for part, value in (*bound, *operation.attributes.items()):
        if part in ("name", "shape"):
            continue
        part = "weight" if part == "val" else part
        shape = tuple(value.type.shape)
        if not isinstance(value.data, Blob):
            yield TensorLocation(file=model, part=part, dtype=value.type.dtype, shape=shape,
                                 size_bytes=len(value.data))
            continue
        root = model if model.endswith(COMPILED) else f"{model}/{ROOT}"
        path = value.data.file.replace(MODEL_PATH, root)
        try:
            found = BlobReader(builder.file(record, path)).record(value.data.offset)
        except MissingArtifact:  # virtual, or evicted
            found = written_record(value.data.offset, value.type.dtype, prod(shape))
        yield TensorLocation(file=path, part=part, dtype=value.type.dtype, shape=shape,
                             offset=found.data_offset, size_bytes=found.size_bytes,
                             record_offset=found.offset)


def format_stops(stops: list[Stop]) -> str:
    """Returns the way as people read it."""
    lines = []
    for stop in stops:
        lines.append(f"{stop.step:<24}{stop.says}")
        lines += [f"{'':<24}{place}" for place in stop.places]
    return "\n".join(lines)
