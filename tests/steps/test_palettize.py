"""The step keeps within the memory that it was promised, and its facts are reproducible."""

import numpy as np
import pytest

from sdbuild.engine.process import run_step
from sdbuild.engine.stage import NetworkSize
from sdbuild.steps.palettize import STAGE
from tests.mil.compress.large import large_package

COUNT, SIDE = 80, 1 << 10


def palettized(tmp_path, nbits, memory_bytes=0):
    """The facts of the step, and the most memory that its process held."""
    work = tmp_path / f"work{len(list(tmp_path.iterdir()))}"
    (work / "output").mkdir(parents=True)
    job = {"params": {"nbits": nbits}, "inputs": {"package": str(tmp_path / "package")},
           "output": str(work / "output"), "places": [], "config": "", "facts": {}, "reads": (),
           "locked": {}, "resources": {"memory_bytes": memory_bytes}}
    return run_step("palettize", job, work)


@pytest.mark.parametrize("promise", [STAGE.memory, STAGE.most_memory], ids=["least", "most"])
def test_the_packed_weights_of_a_large_model_are_not_kept_in_memory(tmp_path, promise):
    """80 MB come out, of 160 MB that are read; what is promised has room for a few tensors."""
    rng = np.random.default_rng(0)
    (tmp_path / "package").mkdir()
    large_package(tmp_path / "package" / "Unet.mlpackage", (
        rng.integers(0, 256, (SIDE, SIDE), np.uint8).astype(np.float16) for _ in range(COUNT)))
    promised = promise.at(NetworkSize(all=COUNT * SIDE**2, largest=SIDE**2))

    facts, peak = palettized(tmp_path, 8, promised)

    assert [8] * COUNT == [tensor["bits"] for tensor in facts["tensors"]]
    assert peak <= promised


def test_what_is_reported_does_not_depend_on_the_threads_of_linear_algebra(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    (tmp_path / "package").mkdir()
    large_package(tmp_path / "package" / "Unet.mlpackage", (
        rng.standard_normal((SIDE, SIDE)).astype(np.float16) for _ in range(3)))

    found = []
    for threads in ("1", "2"):
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", threads)
        found.append(palettized(tmp_path, 4)[0])

    assert found[0] == found[1]
