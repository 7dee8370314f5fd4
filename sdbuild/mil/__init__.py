"""ML Programs without a Mac: read, write, palettize, chunk, compile and execute them.

Knows nothing of builds or of Stable Diffusion. Start at `ir/program.py`, the nouns. What
`sdbuild.mil` itself offers (docs/python.md) is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdbuild.mil.compile.compile import compile_package as compile_package
    from sdbuild.mil.compress.palettize import palettize as palettize
    from sdbuild.mil.compress.quantize import quantize as quantize
    from sdbuild.mil.compress.sparsify import sparsify as sparsify
    from sdbuild.mil.edit.chunk import chunk as chunk
    from sdbuild.mil.execute.execute import Executor as Executor
    from sdbuild.mil.inspect.diff import differences as differences
    from sdbuild.mil.inspect.summary import read_models as read_models
    from sdbuild.mil.inspect.verify import verify as verify
    from sdbuild.mil.text.printer import dialect_of as dialect_of
    from sdbuild.mil.text.printer import format_program as format_program

_OFFERED = {
    "read_models": "inspect.summary", "verify": "inspect.verify", "differences": "inspect.diff",
    "format_program": "text.printer", "dialect_of": "text.printer", "Executor": "execute.execute",
    "palettize": "compress.palettize", "quantize": "compress.quantize",
    "sparsify": "compress.sparsify", "chunk": "edit.chunk",
    "compile_package": "compile.compile",
}
"""Public names of `sdbuild.mil`, and the module that each is imported from when first used."""


def __getattr__(name: str) -> Any:
    if name not in _OFFERED:
        raise AttributeError(f"module 'sdbuild.mil' has no attribute {name!r}")
    return getattr(importlib.import_module(f"sdbuild.mil.{_OFFERED[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_OFFERED]
