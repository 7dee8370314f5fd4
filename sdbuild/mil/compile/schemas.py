"""Inputs, outputs and states as `metadata.json` of a compiled model describes them."""

from __future__ import annotations

from sdbuild.base.errors import UnsupportedFormat
from sdbuild.mil.ir.proto import Message

_ARRAY_TYPES = {65568: "Float32", 65552: "Float16", 131104: "Int32"}
_RGB = 20
_TIMES = " × "


def schema(feature: Message) -> dict[str, str]:
    """Returns what is said of an input or an output.

    Raises:
        UnsupportedFormat: how such a feature is described is not known.
    """
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


def state_schema(feature: Message) -> dict[str, str]:
    """Returns what is said of a state.

    Raises:
        UnsupportedFormat: how such a state is described is not known.
    """
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
    """Returns the lower and upper bound of each dimension, or nothing if the shape is fixed.

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
    """Returns the default shape: the one given, else the lower bounds."""
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
