"""`metadata.json`: what a compiled model says of itself to people and tools.

Computed from the description (schemas) and the program (precisions, histogram). Core ML itself
does not need it; apps read shapes and the histogram from it. Keys are in alphabetical order here,
where Apple's compiler has a hash order.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from sdbuild.errors import InvalidProgram, UnsupportedFormat
from sdbuild.mil.dtype import DTYPES
from sdbuild.mil.histogram import histogram_name
from sdbuild.mil.package import Model
from sdbuild.mil.program import Blob, Function, Operation, TensorType, Type, Value
from sdbuild.mil.proto import Message

_AVAILABILITY = {
    6: ("12.0", "15.0", "8.0", "1.0"),
    7: ("13.0", "16.0", "9.0", "1.0"),
    8: ("14.0", "17.0", "10.0", "1.0"),
    9: ("15.0", "18.0", "11.0", "2.0"),
}
"""The first macOS, iOS, watchOS and visionOS that load each specification version."""

_ARRAY_TYPES = {65568: "Float32", 65552: "Float16", 131104: "Int32"}
_RGB = 20
_TIMES = " × "


def describe(model: Model, class_name: str) -> list[dict]:
    """The content of `metadata.json`; `class_name` is the stem of the model's file.

    Raises:
        InvalidProgram: description and program do not belong together.
        UnsupportedFormat: how something in the model is described is not known.
    """
    description = model.description
    top = _default_features(description)
    function = function_of(model, top)
    entry = {
        **_described_function(top, function),
        **_authorship(description.metadata),
        "availability": _availability(model.specification_version),
        "generatedClassName": _class_name(class_name),
        "isUpdatable": "0",
        "metadataOutputVersion": "3.0",
        "method": "predict",
        "modelParameters": [],
        "modelType": {"name": "MLModelType_mlProgram"},
        "specificationVersion": model.specification_version,
        "userDefinedMetadata": dict(description.metadata.userDefined),
    }
    storage = _storage_precision(function)
    if storage:
        entry["storagePrecision"] = storage
    if description.functions:
        entry["defaultFunctionName"] = description.defaultFunctionName
        entry["functions"] = [
            {"name": features.name, **_described_function(features, function_of(model, features))}
            for features in description.functions
        ]
    return [entry]


def function_of(model: Model, features: Message) -> Function:
    """The function that a `ModelDescription` or one of its `FunctionDescription`s speaks of.

    Raises:
        InvalidProgram: the program has no such function.
    """
    name = getattr(features, "name", "main")
    if name not in model.program.functions:
        found = ", ".join(model.program.functions) or "none"
        raise InvalidProgram(f"{model.source}: no function {name!r} in the program; found: {found}")
    return model.program.functions[name]


def _default_features(description: Message) -> Message:
    """The description itself, or that of its default function."""
    if not description.functions:
        return description
    for features in description.functions:
        if features.name == description.defaultFunctionName:
            return features
    raise InvalidProgram(
        f"the default function {description.defaultFunctionName!r} is not described; "
        f"found: {', '.join(features.name for features in description.functions)}"
    )


def _described_function(features: Message, function: Function) -> dict:
    counts = Counter(
        histogram_name(operation.type, function.opset)
        for operation in function.block.operations if operation.type != "const"
    )
    return {
        "computePrecision": _compute_precision(function),
        "inputSchema": [_schema(feature) for feature in features.input],
        "mlProgramOperationTypeHistogram": dict(counts),
        "outputSchema": [_schema(feature) for feature in features.output],
        "stateSchema": [_state_schema(feature) for feature in features.state],
    }


def _authorship(metadata: Message) -> dict[str, str]:
    fields = {
        "shortDescription": metadata.shortDescription,
        "version": metadata.versionString,
        "author": metadata.author,
        "license": metadata.license,
    }
    return {key: text for key, text in fields.items() if text}


def _availability(specification_version: int) -> dict[str, str]:
    mac, phone, watch, vision = _AVAILABILITY[specification_version]
    return {"macOS": mac, "iOS": phone, "tvOS": phone, "macCatalyst": phone,
            "watchOS": watch, "visionOS": vision}


def _class_name(stem: str) -> str:
    if not stem or stem[0].isdigit():
        raise UnsupportedFormat(
            f"the class name of a model called {stem!r} is not known",
            hint="Give the model a name that begins with a letter.",
        )
    return re.sub(r"[^A-Za-z0-9_]", "_", stem)


# schemas


def _schema(feature: Message) -> dict[str, str]:
    kind = feature.type.WhichOneof("Type")
    match kind:
        case "multiArrayType":
            details = _array_schema(feature.name, feature.type.multiArrayType)
        case "imageType":
            details = _image_schema(feature.name, feature.type.imageType)
        case "doubleType":
            details = {"type": "Double", "formattedType": "Double"}
        case _:
            raise UnsupportedFormat(
                f"feature {feature.name}: how a {kind or 'feature without a type'} is described is "
                "not known"
            )
    return {
        "name": feature.name,
        "shortDescription": feature.shortDescription,
        "isOptional": _flag(feature.type.isOptional),
        **details,
    }


def _array_schema(name: str, array: Message) -> dict[str, str]:
    if array.dataType not in _ARRAY_TYPES:
        raise UnsupportedFormat(
            f"feature {name}: how data type number {array.dataType} is described is not known"
        )
    dtype = _ARRAY_TYPES[array.dataType]
    ranges = array_ranges(name, array)
    shape = array_shape(name, array)
    sizes = f" {_TIMES.join(map(str, shape))}" if shape else ""
    schema = {
        "type": "MultiArray",
        "dataType": dtype,
        "shape": str(shape),
        "formattedType": f"MultiArray ({dtype}{sizes})",
        "hasShapeFlexibility": _flag(bool(ranges)),
    }
    if ranges:
        schema["shapeRange"] = str(ranges)
        schema["shapeFlexibility"] = _TIMES.join(
            str(low) if low == high else f"{low}...{high}" for low, high in ranges
        )
    return schema


def _state_schema(feature: Message) -> dict[str, str]:
    kind = feature.type.WhichOneof("Type")
    if kind != "stateType" or feature.type.stateType.arrayType.dataType not in _ARRAY_TYPES:
        raise UnsupportedFormat(
            f"state {feature.name}: only how a state of floats or 32-bit integers is described is "
            "known"
        )
    array = feature.type.stateType.arrayType
    dtype = _ARRAY_TYPES[array.dataType]
    return {
        "name": feature.name,
        "shortDescription": feature.shortDescription,
        "isOptional": _flag(feature.type.isOptional),
        "type": "State",
        "dataType": dtype,
        "shape": str(list(array.shape)),
        "formattedType": f"State ({dtype} {_TIMES.join(map(str, array.shape))})",
    }


def array_ranges(name: str, array: Message) -> list[list[int]]:
    """The lower and upper bound of each dimension, or nothing if the shape is fixed.

    Raises:
        UnsupportedFormat: the shape is flexible in another way, or without an upper bound.
    """
    kind = array.WhichOneof("ShapeFlexibility")
    if kind is None:
        return []
    if kind != "shapeRange":
        raise UnsupportedFormat(
            f"feature {name}: shapes are enumerated, and compiled models key each by a hash that "
            "is not known",
            hint="Use ranges of sizes, or a fixed shape.",
        )
    bounds = [[size.lowerBound, size.upperBound] for size in array.shapeRange.sizeRanges]
    if any(high < 0 for _, high in bounds):
        raise UnsupportedFormat(
            f"feature {name}: how a size without an upper bound is compiled is not known",
            hint="Give each range an upper bound.",
        )
    return bounds


def array_shape(name: str, array: Message) -> list[int]:
    """The default shape: the one given, else the lower bounds."""
    return list(array.shape) or [low for low, _ in array_ranges(name, array)]


def _image_schema(name: str, image: Message) -> dict[str, str]:
    if image.WhichOneof("SizeFlexibility") is not None or image.colorSpace != _RGB:
        raise UnsupportedFormat(
            f"feature {name}: only how an RGB image of one size is described is known"
        )
    return {
        "type": "Image",
        "width": str(image.width),
        "height": str(image.height),
        "colorspace": "RGB",
        "isColor": "1",
        "hasSizeFlexibility": "0",
        "formattedType": f"Image (Color {image.width}{_TIMES}{image.height})",
    }


def _flag(value: bool) -> str:
    return "1" if value else "0"


# precisions


def _compute_precision(function: Function) -> str:
    """The data types of all outputs and referenced inputs, but for those of constants."""
    types = {item.name: item.type for item in function.inputs}
    used = []
    for operation in function.block.operations:
        types.update((item.name, item.type) for item in operation.outputs)
        if operation.type != "const":
            used += [_type_of(name, operation, types) for name in operation.references()]
            used += [item.type for item in operation.outputs]
    return _joined(_numeric(kind) for kind in used)


def _type_of(name: str, operation: Operation, types: dict[str, Type]) -> Type:
    if name not in types:
        raise InvalidProgram(
            f"{operation.type} {operation.name}: {name!r} is not defined before it"
        )
    return types[name]


def _numeric(kind: Type) -> str | None:
    return DTYPES[kind.dtype].metadata_name if isinstance(kind, TensorType) else None


def _storage_precision(function: Function) -> str:
    """How the constants of a function are stored, or nothing if none lies in a weight file."""
    operations = function.block.operations
    if not any(isinstance(v.data, Blob) for op in operations for v in op.constants()):
        return ""
    types = {item.name: item.type for operation in operations for item in operation.outputs}
    return _joined(
        word for operation in operations for word in _storage(operation, function.opset, types)
    )


def _storage(operation: Operation, opset: str, types: Mapping[str, Type]) -> list[str | None]:
    """What an operation adds to `storagePrecision`.

    An iOS 18 palette was seen with 8 bits and one table (`Palettized (8 bits), UInt8`); that other
    numbers of bits and of tables are called likewise is derived.
    """
    match operation.type:
        case "const":
            value = _attribute(operation, "val")
            return [_numeric(value.type)] if isinstance(value.data, Blob) else []
        case "constexpr_affine_dequantize":
            return [_numeric(_attribute(operation, "quantized_data").type)]
        case "constexpr_lut_to_dense" if opset != "CoreML8":
            return [f"Palettized ({_index_bits(_attribute(operation, 'lut'))} bits)"]
        case "constexpr_lut_to_dense":
            kind = _argument_type(operation, "indices", types)
            return [f"Palettized ({DTYPES[kind.dtype].bits} bits)", _numeric(kind)]
        case "constexpr_sparse_to_dense" if opset != "CoreML8":
            return ["Sparse"]
        case "constexpr_blockwise_shift_scale":
            return [_numeric(_argument_type(operation, "data", types))]
        case kind if kind.startswith("constexpr_"):
            raise UnsupportedFormat(
                f"{kind} {operation.name}: how its storage is described under opset {opset} is "
                "not known",
                hint="Compress weights for iOS 17 or earlier, or compile on a Mac.",
            )
    return []


def _argument_type(operation: Operation, key: str, types: Mapping[str, Type]) -> TensorType:
    """The type of an argument that has to be a tensor."""
    for binding in operation.inputs.get(key, ()):
        kind = types.get(binding) if isinstance(binding, str) else binding.type
        if isinstance(kind, TensorType):
            return kind
    raise InvalidProgram(f"{operation.type} {operation.name} has no tensor called {key!r}")


def _attribute(operation: Operation, key: str) -> Value:
    if key not in operation.attributes:
        raise InvalidProgram(f"{operation.type} {operation.name} has no attribute {key!r}")
    return operation.attributes[key]


def _index_bits(table: Value) -> int:
    """The bits that an index into a lookup table takes."""
    count = table.type.count if isinstance(table.type, TensorType) else None
    if not count:
        raise InvalidProgram(f"a lookup table has the type {table.type}")
    return (count - 1).bit_length()


def _joined(names: Iterable[str | None]) -> str:
    distinct = sorted({name for name in names if name is not None})
    return f"Mixed ({', '.join(distinct)})" if len(distinct) > 1 else "".join(distinct)


# text


def format_metadata(content: object) -> str:
    """`metadata.json` text: sorted keys, and the spacing and escapes of Apple's compiler."""
    return "".join(_json(content, "\n"))


def _json(content: object, line: str) -> Iterator[str]:
    match content:
        case dict():
            items = [
                [_string(key), " : ", *_json(value, f"{line}  ")]
                for key, value in sorted(content.items())
            ]
            yield from _container("{", items, "}", line)
        case list():
            yield from _container("[", [_json(item, f"{line}  ") for item in content], "]", line)
        case str():
            yield _string(content)
        case _:
            yield str(content)


def _container(left: str, items: list[Iterable[str]], right: str, line: str) -> Iterator[str]:
    yield left
    for position, item in enumerate(items):
        yield f",{line}  " if position else f"{line}  "
        yield from item
    yield f"{line}{right}" if items else f"\n{line}{right}"


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("/", r"\/")
