"""Operations and weights of a model, as rows to print or compare. Nothing is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbuild.mil.edit.pipeline import is_pipeline, read_pipeline
from sdbuild.mil.files.compiled import PROGRAM_FILE
from sdbuild.mil.files.package import MANIFEST_FILE, Model
from sdbuild.mil.files.read import read_model
from sdbuild.mil.files.validate import blocks
from sdbuild.mil.ir.dtype import DTYPES
from sdbuild.mil.ir.program import Blob, Block, Operation, TensorType, Value
from sdbuild.mil.ir.proto import Message
from sdbuild.mil.ir.traverse import walk


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A constant in a weight file.

    `name` is that of the value; `operation` is the type of what uses it, or of what holds it where
    that is no `const`.

    Units:
        bits: per element, of a palette's indices those that count; size_bytes, offset: bytes.
    """

    function: str
    name: str
    operation: str
    argument: str
    dtype: str
    shape: tuple[int, ...]
    bits: int
    size_bytes: int
    file: str
    offset: int


def read_models(path: Path) -> tuple[Model, ...]:
    """Returns the models in a folder: those of a pipeline in their order, or the only one.

    Raises:
        InvalidProgram: the folder is neither package nor compiled model, or is broken.
        UnsupportedFormat: a model is not an ML Program, or uses a form that is not known.
    """
    is_package = (path / MANIFEST_FILE).is_file() and not (path / PROGRAM_FILE).is_file()
    return read_pipeline(path).models if is_package and is_pipeline(path) else (read_model(path),)


def operation_counts(block: Block) -> Mapping[str, int]:
    """Returns how often each type of operation occurs, nested blocks included, the commonest
    first."""
    counts = Counter(operation.type for operation in walk(block))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def weights(model: Model) -> Iterator[Weight]:
    """Yields every constant in a weight file, in the order of the program.

    Raises:
        InvalidProgram: a blob breaks the format.
    """
    for name, _, block in blocks(model):
        users = _users(block)
        for operation in walk(block):
            for argument, value in placed(operation):
                yield _weight(model, name, users, operation, argument, value)


def placed(operation: Operation) -> Iterator[tuple[str, Value]]:
    """Yields the constants of an operation that lie in weight files, with the argument of each."""
    arguments = [(key, binding) for key, bindings in operation.inputs.items()
                 for binding in bindings]
    for key, value in (*arguments, *operation.attributes.items()):
        if isinstance(value, Value) and isinstance(value.data, Blob):
            yield key, value


def _users(block: Block) -> dict[str, str]:
    """Returns the type of the first operation that uses each value."""
    users: dict[str, str] = {}
    for operation in walk(block):
        for name in operation.references():
            users.setdefault(name, operation.type)
    return users


def _weight(
    model: Model, function: str, users: Mapping[str, str], operation: Operation, argument: str,
    value: Value,
) -> Weight:
    blob, kind = value.data, value.tensor
    assert isinstance(blob, Blob)  # those in place are left out
    shape = tuple(dim for dim in kind.shape if isinstance(dim, int))
    name = operation.outputs[0].name if operation.outputs else operation.name
    is_const = operation.type == "const"
    return Weight(
        function=function, name=name, argument=argument, dtype=kind.dtype, shape=shape,
        operation=users.get(name, "nothing") if is_const else operation.type,
        bits=_bits(operation, argument, kind), file=blob.file, offset=blob.offset,
        size_bytes=model.reader(blob.file).record(blob.offset).size_bytes,
    )


def _bits(operation: Operation, argument: str, kind: TensorType) -> int:
    """Returns the bits of an element; indices of iOS 16 palettes are bytes only by name."""
    table = operation.attributes.get("lut")
    if argument == "indices" and table is not None and isinstance(table.type, TensorType):
        return max((table.type.count or 1) - 1, 1).bit_length()
    return DTYPES[kind.dtype].bits


def feature_text(feature: Message) -> str:
    """Returns what an input or output of a model is, on one line."""
    kind = feature.type.WhichOneof("Type")
    inner: Any = getattr(feature.type, kind) if kind else None
    match kind:
        case "multiArrayType":
            text = f"{_array_name(inner)} {_dims(inner.shape)}{_flexibility(inner)}"
        case "imageType":
            text = f"image {_enum_name(inner, 'colorSpace')} {inner.width} × {inner.height}"
        case "stateType":
            text = f"state {_array_name(inner.arrayType)} {_dims(inner.arrayType.shape)}"
        case _:
            text = (kind or "unknown").removesuffix("Type")
    return f"{text}, optional" if feature.type.isOptional else text


def _array_name(array: Message) -> str:
    return _enum_name(array, "dataType")


def _enum_name(message: Message, field: str) -> str:
    number = getattr(message, field)
    known = message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number
    return known[number].name.lower() if number in known else str(number)


def _dims(shape: Iterator[int]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _flexibility(array: Message) -> str:
    match array.WhichOneof("ShapeFlexibility"):
        case "enumeratedShapes":
            shapes = " | ".join(_dims(s.shape) for s in array.enumeratedShapes.shapes)
            return f", one of {shapes}"
        case "shapeRange":
            ranges = array.shapeRange.sizeRanges
            return f", of [{', '.join(_range(r.lowerBound, r.upperBound) for r in ranges)}]"
    return ""


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}…{high}" if high >= 0 else f"{low}…"
