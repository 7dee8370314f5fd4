"""Reads compiled models, `.mlmodelc` folders, which `compile/compile.py` writes."""

from __future__ import annotations

from pathlib import Path

from sdbuild.base.errors import InvalidProgram
from sdbuild.mil.files.coremldata import unpack_description
from sdbuild.mil.files.package import Model
from sdbuild.mil.text.parse import parse_program

PROGRAM_FILE = "model.mil"
DESCRIPTION_FILE = "coremldata.bin"

_LARGEST_BYTES = 1 << 28
"""Far above any real program, whose weights lie elsewhere; far below a machine's memory."""


def read_compiled(path: Path) -> Model:
    """Returns the model in an `.mlmodelc` folder.

    Raises:
        InvalidProgram: the folder is not a compiled ML Program, or one of its files is broken.
        UnsupportedFormat: the model is of another kind, or uses a form that is not known.
    """
    file = path / DESCRIPTION_FILE
    version, description = unpack_description(_content(file), str(file))
    file = path / PROGRAM_FILE
    try:
        text = _content(file).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidProgram(f"{file}: not UTF-8 text: {error}") from None
    return Model(
        specification_version=version,
        description=description,
        program=parse_program(text, str(file)),
        root=path,
        source=path,
    )


def _content(file: Path) -> bytes:
    if not file.is_file():
        raise InvalidProgram(f"{file.parent}: no {file.name}, so not a compiled ML Program")
    size = file.stat().st_size
    if size > _LARGEST_BYTES:
        raise InvalidProgram(f"{file}: {size} bytes, expected at most {_LARGEST_BYTES}")
    return file.read_bytes()
