"""A build system that treats Core ML models as incremental, cached artifacts.

    import sdbuild

    built = sdbuild.build("tiny-emoji", quant=6)
    images = sdbuild.load_bundle(built.bundle).generate("a red apple", seed=7)

`sdbuild.mil` reads, edits, compiles and runs ML Programs. Nothing heavy is imported before it is
used (docs/python.md).
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdbuild import mil as mil
    from sdbuild.base import errors as errors
    from sdbuild.cli.api import BuildResult as BuildResult
    from sdbuild.cli.api import Bundle as Bundle
    from sdbuild.cli.api import build as build
    from sdbuild.cli.api import load_bundle as load_bundle

if sys.platform == "win32":  # locks and links are those of POSIX
    raise SystemExit("sdbuild: runs on macOS and Linux, not on Windows itself\n\n"
                     "hint: use it in WSL, which is Linux to it: wsl --install")

__version__ = "0.1.0"

__all__ = ["BuildResult", "Bundle", "build", "errors", "load_bundle", "mil"]

_MODULES = {"mil": "sdbuild.mil", "errors": "sdbuild.base.errors"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in __all__:
        return getattr(importlib.import_module("sdbuild.cli.api"), name)
    raise AttributeError(f"module 'sdbuild' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
