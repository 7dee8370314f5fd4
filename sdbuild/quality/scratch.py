"""Arrays in unnamed temporary files, which may be larger than memory: the system writes them to
disk when it needs their memory, and frees the disk space when the process ends."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import torch


def scratch(folder: Path, shape: Sequence[int]) -> torch.Tensor:
    """Returns zeros in fp32, in a file in `folder`.

    Raises:
        OSError: the disk is full. Raised here, as the space is allocated at once; on macOS, which
            has no `posix_fallocate`, the process is killed at a later write instead.
    """
    with TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, 4 * prod(shape))
        return torch.from_numpy(np.memmap(file, np.float32, "w+", shape=tuple(shape)))
