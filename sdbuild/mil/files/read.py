"""A model from either of its forms on disk."""

from __future__ import annotations

from pathlib import Path

from sdbuild.base.errors import InvalidProgram
from sdbuild.mil.files.compiled import PROGRAM_FILE, read_compiled
from sdbuild.mil.files.package import MANIFEST_FILE, Model, read_package


def read_model(path: Path) -> Model:
    """Returns the model in a folder, an `.mlpackage` or an `.mlmodelc`: its content decides, not
    its name.

    Raises:
        InvalidProgram: the folder is neither, or one of its files is broken.
        UnsupportedFormat: the model is not an ML Program, or uses a form that is not known.
    """
    if (path / MANIFEST_FILE).is_file():
        return read_package(path)
    if (path / PROGRAM_FILE).is_file():
        return read_compiled(path)
    if not path.exists():
        raise InvalidProgram(f"{path}: there is no such file or folder")
    raise InvalidProgram(
        f"{path}: neither a package (no {MANIFEST_FILE}) nor a compiled model (no {PROGRAM_FILE})"
    )
