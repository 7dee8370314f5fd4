"""diffusers' schedulers, made without the compiler of PyTorch and without scipy.

diffusers imports `torch._dynamo` for a decorator of networks, and `scipy.stats` for sigmas that are
not offered here: both take longer than a small picture. It also lists the files of all installed
packages, to know by which name each is imported: half of what its own import takes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module, metadata
from typing import Any

_COMPILER = "torch._dynamo"
_AVAILABLE = "diffusers.utils.import_utils"
_NEED_SCIPY = {"LMSDiscreteScheduler": "integrate"}
"""The schedulers that compute with scipy, and its module that theirs imports."""


def made(kind: str, config: Mapping[str, Any]) -> Any:
    """Returns a scheduler of diffusers of this class, with a config of any.

    It looks for the classes that could share the config, and imports all of them.

    Raises:
        ImportError: it needs a package that is not installed.
    """
    with _without(_COMPILER), _without_listing():
        import diffusers
        import diffusers.schedulers  # while it may see scipy: it lists its classes once
        from diffusers.utils import import_utils

        diffusers.utils.logging.set_verbosity_error()  # it warns of each field that it lacks
        known = getattr(import_utils, "_scipy_available", None)
        try:
            if known and kind not in _NEED_SCIPY:
                import_utils._scipy_available = False
            found = getattr(diffusers, kind).from_config(config)
        finally:
            if known is not None:
                import_utils._scipy_available = known
    if name := _NEED_SCIPY.get(kind):  # its module may have been imported for another's config
        setattr(sys.modules[type(found).__module__], name, import_module(f"scipy.{name}"))
    return found


@contextmanager
def _without_listing() -> Iterator[None]:
    """Lets diffusers be imported without a list of installed packages, which it makes when it first
    needs it where there is none."""
    if _AVAILABLE in sys.modules:
        yield
        return
    known = metadata.packages_distributions
    metadata.packages_distributions = dict
    try:
        yield
    finally:
        metadata.packages_distributions = known
        if hasattr(found := sys.modules.get(_AVAILABLE), "_package_map"):
            found._package_map = None  # type: ignore[union-attr]


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Lets a module that is not imported yet be taken for one that is not there."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop(module, None)
