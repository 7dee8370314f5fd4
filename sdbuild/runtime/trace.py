"""The intermediate values of an image, step by step, as files that a Mac's runner compares.

Source:
    The names that the diffusion runner of apple/coreai-models reads for `--parity-test`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sdbuild.base.errors import SDBuildError

Trace = Callable[[str, np.ndarray], None]
"""Takes an array under its name."""


def to_folder(folder: Path) -> Trace:
    """Writes each array as `NAME.npy`, in fp32."""
    def write(name: str, array: np.ndarray) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{name}.npy", np.asarray(array, np.float32), allow_pickle=False)
        except OSError as error:
            raise SDBuildError(f"{folder}: cannot be written: {error.strerror}") from error
    return write
