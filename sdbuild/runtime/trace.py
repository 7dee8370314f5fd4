"""The intermediate values of an image, step by step, as files that a Mac's runner compares.

Source:
    The names that the diffusion runner of apple/coreai-models reads for `--parity-test`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sdbuild.base.errors import SDBuildError
from sdbuild.base.filenames import contents

Trace = Callable[[str, np.ndarray], None]
"""Takes an array under its name."""

_OF_A_TRACE = re.compile(r"(initial_latents|(text|neg)_embeddings|timesteps|\w+_step\d+)\.npy")


def check_free(folder: Path) -> None:
    """Makes sure that a folder has no trace yet: a shorter one would leave steps of it. Nothing is
    removed, as a Mac's runner calls its own files so.

    Raises:
        SDBuildError: it has one, or is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise SDBuildError(f"{folder}: a file, expected a folder for the trace")
    found = contents(folder) if folder.is_dir() else []
    if any(_OF_A_TRACE.fullmatch(path.name) for path in found):
        raise SDBuildError(f"{folder}: there is a trace in it already, whose steps would be mixed "
                           "with those of this one", hint="give another folder, or remove it first")


def to_folder(folder: Path) -> Trace:
    """Writes each array as `NAME.npy`, in fp32."""
    def write(name: str, array: np.ndarray) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{name}.npy", np.asarray(array, np.float32), allow_pickle=False)
        except OSError as error:
            raise SDBuildError(f"{folder}: cannot be written: {error.strerror}") from error
    return write
