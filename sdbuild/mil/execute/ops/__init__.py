"""The operations of MIL, one function each, in modules by family as in coremltools.

A function is found by its MIL name; one that would hide a Python keyword or builtin has an
underscore at its end. `_types.py` says what the annotations mean.
"""

from __future__ import annotations

import builtins
import importlib
import inspect
import keyword
import pkgutil
from collections.abc import Callable, Iterator
from functools import cache
from types import ModuleType


@cache
def find(name: str) -> Callable | None:
    """The function of the operation `name`, or None if there is none."""
    attribute = f"{name}_" if keyword.iskeyword(name) or hasattr(builtins, name) else name
    if attribute.startswith("_"):
        return None
    for module in _families():
        found = getattr(module, attribute, None)
        if inspect.isfunction(found) and found.__module__ == module.__name__:
            return found
    return None


def names() -> list[str]:
    """The names of all operations, sorted."""
    return sorted(
        name.removesuffix("_")
        for module in _families()
        for name, found in inspect.getmembers(module, inspect.isfunction)
        if found.__module__ == module.__name__ and not name.startswith("_")
    )


def _families() -> Iterator[ModuleType]:
    """The modules of this package that hold operations, imported as they are needed."""
    for info in pkgutil.iter_modules(__path__):
        if not info.name.startswith("_"):
            yield importlib.import_module(f"{__name__}.{info.name}")
