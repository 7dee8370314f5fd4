"""Protobuf messages of the Core ML specification.

coremltools carries the generated modules, but importing it costs seconds and pulls its converters
in. A package of ours that borrows the path of its `proto` folder loads the modules alone.
Programs are made of messages in `decode.py`, and messages of programs in `encode.py`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from sdbuild.base.errors import ToolMissing
from sdbuild.mil.ir.dtype import DTYPES
from sdbuild.mil.ir.program import Dim

Message = Any
"""A protobuf message; the generated classes carry no types."""

_TYPE_CODES = {"floats": "f", "doubles": "d", "longInts": "q", "bools": "b"}


def borrowed(folder: str, alias: str) -> ModuleType:
    """Returns a package named `alias` whose modules are those in coremltools' `folder`.

    Raises:
        ToolMissing: coremltools is not installed.
    """
    if alias not in sys.modules:
        spec = importlib.util.find_spec("coremltools")
        if spec is None or spec.origin is None:
            raise ToolMissing("coremltools is not installed.", hint="pip install coremltools")
        package = ModuleType(alias)
        package.__path__ = [str(Path(spec.origin).parent / folder)]
        sys.modules[alias] = package
    return sys.modules[alias]


@cache
def messages(name: str) -> ModuleType:
    """Returns the generated module `name`, one of `MIL`, `Model`, `FeatureTypes`."""
    alias = "sdbuild.mil._coreml_proto"
    borrowed("proto", alias)
    return importlib.import_module(f"{alias}.{name}_pb2")


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
