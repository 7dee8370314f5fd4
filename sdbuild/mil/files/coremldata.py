"""`coremldata.bin`: the description of a compiled model, and its analytics, as bytes.

Integers are little-endian; a string is a u64 length and its bytes. A model file is a header, a
`ModelDescription` message with its length, and 16 bytes for each function. The fields are
described in `docs/formats/mlmodelc.md`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from sdbuild.base.errors import InvalidProgram, UnsupportedFormat
from sdbuild.mil.ir.proto import Message, messages, serialize

_ML_PROGRAM = 502
_START = struct.Struct("<I3I12x")
_LENGTH = struct.Struct("<Q")
_VERSION = struct.Struct("<I28x")
_NAME = b"generic"
_COMPATIBILITY = {6: (5, 0, 0), 7: (5, 0, 0), 8: (8, 0, 0), 9: (9, 0, 0)}
"""The version triple of the header, by specification version."""


def pack_description(
    specification_version: int, description: Message, functions: int,
) -> bytes:
    """Returns the `coremldata.bin` of an ML Program of that many functions.

    A description without metadata gets an empty one, as newer compilers do; the two mean the same.
    """
    copy = type(description)()
    copy.CopyFrom(description)
    copy.metadata.SetInParent()
    trailer = struct.pack("<I12x", _ML_PROGRAM) * functions
    return b"".join((
        _START.pack(_ML_PROGRAM, *_COMPATIBILITY[specification_version]),
        _string(_NAME),
        _VERSION.pack(specification_version),
        _string(serialize(copy)),
        trailer,
    ))


def unpack_description(data: bytes, source: str) -> tuple[int, Message]:
    """Returns the specification version and the `ModelDescription` of a `coremldata.bin`.

    Raises:
        InvalidProgram: the bytes break the format.
        UnsupportedFormat: the model is not an ML Program.
    """
    try:
        kind, *_ = _START.unpack_from(data)
        if kind != _ML_PROGRAM:
            raise UnsupportedFormat(
                f"{source}: model kind {kind}, expected {_ML_PROGRAM}, an ML Program"
            )
        _, at = _read_string(data, _START.size, source)
        (version,) = _VERSION.unpack_from(data, at)
        found, _ = _read_string(data, at + _VERSION.size, source)
    except struct.error as error:
        raise InvalidProgram(f"{source}: ends inside its header: {error}") from None
    description = messages("Model").ModelDescription()
    try:
        description.ParseFromString(found)
    except Exception as error:  # protobuf's DecodeError: its module moves between versions
        raise InvalidProgram(f"{source}: no model description: {error}") from error
    return version, description


def pack_analytics(model_hash: str, model_name: str) -> bytes:
    """Returns the `analytics/coremldata.bin` of an ML Program.

    Args:
        model_hash: base64 of the SHA-256 of the source's `.mlmodel` file.
        model_name: the stem of that file.
    """
    details = {"containsCustomLayer": "0", "modelDimension": "0"}
    specification = {"modelHash": model_hash, "modelName": model_name}
    return (_section("NeuralNetworkModelDetails", details)
            + _section("SpecificationDetails", specification))


def _section(title: str, pairs: Mapping[str, str]) -> bytes:
    texts = [text for pair in sorted(pairs.items()) for text in pair]
    body = b"".join(_string(text.encode()) for text in texts)
    return _string(title.encode()) + _LENGTH.pack(len(pairs)) + body


def _string(content: bytes) -> bytes:
    return _LENGTH.pack(len(content)) + content


def _read_string(data: bytes, at: int, source: str) -> tuple[bytes, int]:
    (length,) = _LENGTH.unpack_from(data, at)
    start = at + _LENGTH.size
    if length > len(data) - start:
        raise InvalidProgram(
            f"{source}: {length} bytes at {start}, expected at most the {len(data) - start} left"
        )
    return data[start:start + length], start + length
