"""The versions of tools, as keys hold them and as artifacts name them.

That is the public version, `2.13.0`, without the local part that says how a package was built: a
torch for Linux calls itself `2.13.0+cpu` or `2.13.0+cu130` and the same torch for a Mac `2.13.0`,
and what one machine makes the other shall not make again (docs/decisions/0021).
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from sdbuild.base.errors import ToolMissing


def public(version: str) -> str:
    """Returns a version without its local part.

    Source:
        PEP 440, "Local version identifiers".
    """
    return version.partition("+")[0]


def installed(package: str) -> str:
    """Returns the public version of an installed package.

    Raises:
        PackageNotFoundError: it is not installed.
    """
    return _installed(package, _changes())


@functools.cache
def _installed(package: str, changes: tuple[tuple[str, int], ...]) -> str:
    """Returns its whole metadata is parsed for it: milliseconds, and a build that has nothing to do
    asks hundreds of times."""
    return public(metadata.version(package))


def _changes() -> tuple[tuple[str, int], ...]:
    """Returns when packages last came or went, by folder: one may be upgraded while a build
    runs."""
    return tuple((folder, Path(folder).stat().st_mtime_ns)
                 for folder in sys.path if Path(folder).is_dir())


NETWORKS = ("torch", "coremltools", "diffusers", "transformers", "tokenizers", "regex", "PIL",
            "pillow", "jinja2", "matplotlib")
"""Packages of the extra `networks`, and modules: what converts a network of which no program ships,
and what computes images."""


def package_missing(what: str, package: str) -> ToolMissing:
    """Returns the error that `what` needs a package that is not installed."""
    hint = f"pip install {package}"
    if package in NETWORKS:
        hint = "pip install 'sdbuild[networks]'; images need it, and networks of which no " \
               "program ships with sdbuild"
    return ToolMissing(f"{what}: the package {package} is not installed.", hint=hint)


@contextlib.contextmanager
def public_torch() -> Iterator[None]:
    """Has torch give its public version, for what writes it into files: torch itself into graphs,
    coremltools into models."""
    import torch

    own = torch.__version__
    torch.__version__ = type(own)(public(own))
    try:
        yield
    finally:
        torch.__version__ = own
