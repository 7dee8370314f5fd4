"""Loads the compiled kernels where they are worth it; without numba, numpy does the same work."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

_WORTH = 1 << 20
"""Elements that are looked at: of fewer, numpy is done before numba is imported."""

_KERNELS = "sdbuild.mil.compress.kernels"


def kernels(elements: float) -> ModuleType | None:
    """Returns the kernels, to look at so many elements; None if numpy or Python shall do."""
    if _KERNELS not in sys.modules and elements < _WORTH:
        return None
    if importlib.util.find_spec("numba") is None:
        return None
    from sdbuild.mil.compress import kernels

    return kernels
