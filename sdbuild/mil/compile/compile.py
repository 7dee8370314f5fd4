"""Packages compiled: `.mlpackage` to `.mlmodelc`, as Apple's compiler does it.

Compiling is printing: nothing is folded, renamed or moved, and weight files stay as they
are. What is not known for certain about the compiled form is refused, never guessed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sdbuild.base.errors import InvalidProgram, UnsupportedFormat
from sdbuild.mil.compile.metadata import describe, format_metadata, function_of
from sdbuild.mil.compile.schemas import array_ranges, array_shape
from sdbuild.mil.files.compiled import DESCRIPTION_FILE, PROGRAM_FILE
from sdbuild.mil.files.coremldata import pack_analytics, pack_description
from sdbuild.mil.files.destination import RESULT, put, refuse_existing, written_atomically
from sdbuild.mil.files.package import Model, model_file
from sdbuild.mil.files.validate import read_sound
from sdbuild.mil.ir.program import (
    DictType,
    Function,
    ListType,
    Program,
    StateType,
    TensorType,
    TupleType,
    Value,
    string,
)
from sdbuild.mil.ir.proto import Message
from sdbuild.mil.ir.traverse import weight_files
from sdbuild.mil.text.printer import dialect_of, format_program

_STRING = TensorType("string")
_SHAPE = TensorType("int32", (None,))
_BOUNDS = TensorType("int32", (2,))


@dataclass(frozen=True, slots=True, kw_only=True)
class CompilerVersions:
    """The versions in `buildInfo` of a compiled program.

    The default is the compiler whose output this module was checked against most, so that the
    text claims to be nothing else than what it equals.
    """

    coremlc: str = "3500.32.1"
    mil: str = "3500.14.1"


DEFAULT_VERSIONS = CompilerVersions()


def compile_package(
    source: Path, destination: Path, *,
    versions: CompilerVersions = DEFAULT_VERSIONS, name: str | None = None,
    is_linked: bool = False,
) -> None:
    """Writes the `.mlmodelc` folder `destination` of the `.mlpackage` folder `source`.

    The bytes depend on the package's content, on `versions` and on `name` alone. The folder appears
    whole, or not at all.

    Args:
        name: the model's name, from which apps derive that of a class; that of `source` if None.
        is_linked: weight files are hard links to those of the package, where the file system can;
            for packages that nobody writes into, as a change of either changes both. Else they are
            copies.

    Raises:
        MILError: there is something at `destination`, or it lies in `source`.
        InvalidProgram: the package or its program is broken.
        UnsupportedFormat: the compiled form of something in the package is not known.
    """
    refuse_existing([source], [destination])
    model = read_sound(source)
    file = model_file(source)
    contents = _contents(model, file, versions, source.stem if name is None else name)
    weights = _weight_files(model)
    with written_atomically(destination) as folder:
        for relative, content in contents.items():
            _place(folder / RESULT / relative).write_bytes(content)
        for relative, path in weights.items():
            put(path, _place(folder / RESULT / relative), is_link=is_linked)


def _contents(
    model: Model, file: Path, versions: CompilerVersions, name: str,
) -> dict[str, bytes]:
    """Returns each file of the compiled model but for its weights, by its place."""
    digest = base64.b64encode(hashlib.sha256(file.read_bytes()).digest()).decode()
    text = program_text(model, versions)
    return {
        PROGRAM_FILE: text.encode(),
        DESCRIPTION_FILE: pack_description(
            model.specification_version, model.description, len(model.program.functions)
        ),
        f"analytics/{DESCRIPTION_FILE}": pack_analytics(digest, file.stem),
        "metadata.json": format_metadata(describe(model, name)).encode(),
    }


def program_text(model: Model, versions: CompilerVersions) -> str:
    """Returns the `model.mil` of a model that was read from a package.

    Raises:
        InvalidProgram: description and program do not belong together.
        UnsupportedFormat: the compiled form of something in the program is not known.
    """
    dialect = dialect_of(model.specification_version)
    _refuse_unknown(model)
    build = _build_info(model.program, versions)
    program = replace(
        model.program,
        functions=_flexible_functions(model),
        attributes={**model.program.attributes, "buildInfo": build},
    )
    return format_program(program, dialect)


def _build_info(program: Program, versions: CompilerVersions) -> Value:
    """Returns the source's `buildInfo` with the compiler's entries, in the order of the keys."""
    kind = DictType(_STRING, _STRING)
    source = program.attributes.get("buildInfo", Value(kind, ()))
    if source.type != kind:
        raise InvalidProgram("the program's buildInfo is not a dictionary of strings")
    entries = {_text(key): value for key, value in source.items}
    entries["coremlc-component-MIL"] = string(versions.mil)
    entries["coremlc-version"] = string(versions.coremlc)
    return Value(kind, tuple((string(key), value) for key, value in sorted(entries.items())))


def _text(value: Value) -> str:
    match value:
        case Value(TensorType("string", ()), (str(text),)):
            return text
    raise InvalidProgram(f"a key of the program's buildInfo is not a string but a {value.type}")


# flexible shapes


def _flexible_functions(model: Model) -> dict[str, Function]:
    """Returns the functions, with an attribute that tells the flexible shapes of the
    description."""
    functions = dict(model.program.functions)
    for features in model.description.functions or [model.description]:
        function = function_of(model, features)
        flexible = _flexible_shapes(features)
        if flexible is not None:
            attributes = {**function.attributes, "FlexibleShapeInformation": flexible}
            name = getattr(features, "name", "main")
            functions[name] = replace(function, attributes=attributes)
    return functions


def _flexible_shapes(features: Message) -> Value | None:
    arrays = {
        feature.name: feature.type.multiArrayType
        for feature in sorted(features.input, key=lambda feature: feature.name)
        if feature.type.WhichOneof("Type") == "multiArrayType"
    }
    ranges = {name: array_ranges(name, array) for name, array in arrays.items()}
    shapes = {name: array_shape(name, arrays[name]) for name, bounds in ranges.items() if bounds}
    if not shapes:
        return None
    defaults = _dictionary(_SHAPE, {name: _integers(_SHAPE, s) for name, s in shapes.items()})
    kind = ListType(_BOUNDS, None)
    limits = _dictionary(kind, {
        name: Value(kind, tuple(_integers(_BOUNDS, pair) for pair in ranges[name]))
        for name in shapes
    })
    return _tuple(
        _tuple(string("DefaultShapes"), defaults), _tuple(string("RangeDims"), limits),
    )


def _tuple(*items: Value) -> Value:
    return Value(TupleType(tuple(item.type for item in items)), items)


def _dictionary(kind: TensorType | ListType, items: Mapping[str, Value]) -> Value:
    pairs = tuple((string(key), value) for key, value in items.items())
    return Value(DictType(_STRING, kind), pairs)


def _integers(kind: TensorType, numbers: list[int]) -> Value:
    return Value(kind, b"".join(number.to_bytes(4, "little", signed=True) for number in numbers))


# refusals


def _refuse_unknown(model: Model) -> None:
    """Raises for what prints, but whose compiled form was never seen."""
    description = model.description
    names = [features.name for features in description.functions]
    if names != sorted(names):
        raise UnsupportedFormat(
            f"{model.source}: the order in which functions called {', '.join(names)} are compiled "
            "is not known",
            hint="Describe the functions in the order of their names.",
        )
    if description.trainingInput:
        raise UnsupportedFormat(f"{model.source}: how updatable models are compiled is not known")
    for name, function in model.program.functions.items():
        _refuse_unknown_types(name, function)


def _refuse_unknown_types(name: str, function: Function) -> None:
    kinds = [(item.name, item.type.wrapped if isinstance(item.type, StateType) else item.type)
             for item in function.inputs]
    kinds += [(item.name, item.type)
              for operation in function.block.operations for item in operation.outputs]
    for item, kind in kinds:
        if not isinstance(kind, TensorType):
            raise UnsupportedFormat(
                f"function {name}: {item} is neither a tensor nor a state of one; the compiled "
                "form of other types is not known"
            )


# weight files


def _weight_files(model: Model) -> dict[str, Path]:
    """Returns each weight file that the program refers to, by its place in the compiled model."""
    files = {}
    for file in weight_files(model.program):
        path = model.weight_file(file)
        relative = path.relative_to(model.root)
        if relative.parts[0] != "weights":
            raise UnsupportedFormat(f"{model.source}: weight file {file!r} is not in weights/")
        files[relative.as_posix()] = path
    return files


def _place(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
