"""Protobuf messages of the Core ML specification.

Their descriptors are in this folder, so that nothing of coremltools is needed to read and write
models. They are in a pool of their own: a program that imports coremltools as well has both.
Programs are made of messages in `decode.py`, and messages of programs in `encode.py`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from sdbuild.mil.ir.dtype import DTYPES
from sdbuild.mil.ir.program import Dim

Message = Any
"""A protobuf message; the generated classes carry no types."""

DESCRIPTORS = Path(__file__).parent / "coreml" / "messages.binpb"

_TYPE_CODES = {"floats": "f", "doubles": "d", "longInts": "q", "bools": "b"}


@cache
def messages(name: str) -> SimpleNamespace:
    """Returns the classes of the messages in the file `name`, one of `MIL`, `Model`,
    `FeatureTypes`."""
    found = _pool().FindFileByName(f"{name}.proto")
    return SimpleNamespace(**{
        kind: message_factory.GetMessageClass(descriptor)
        for kind, descriptor in found.message_types_by_name.items()
    })


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file:
        pool.Add(file)
    return pool


def serialize(message: Message) -> bytes:
    """Returns the bytes of `message`, the same for equal messages (maps in the order of their
    keys)."""
    return message.SerializeToString(deterministic=True)


def rank_of(shape: tuple[Dim, ...]) -> int:
    """Returns the `rank` of a tensor type of that shape, as its message says it."""
    return -1 if ... in shape else len(shape)


def stored_as(dtype: str) -> tuple[str, str]:
    """Returns the field that holds the elements of `dtype`, and the type code of its packed
    elements."""
    kind = DTYPES[dtype]
    code = kind.format if kind.field == "ints" else _TYPE_CODES.get(kind.field)
    return kind.field, code or ""
