"""The step keeps within the memory that it was promised, and its facts are reproducible."""

import coremltools
import numpy as np
import pytest

from sdbuild.engine.process import run_step
from sdbuild.engine.stage import Job, NetworkSize
from sdbuild.steps.palettize import STAGE
from tests.mil.compress.large import large_package
from tests.mil.packages import IOS18, convolutions

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


def test_exceptions_and_groups_reach_the_package(tmp_path):
    (tmp_path / "package").mkdir()
    convolutions(tmp_path / "package" / "Unet.mlpackage", IOS18, layers=2)
    (tmp_path / "made").mkdir()
    params = {"nbits": 4, "mixed": {"conv1*": 6}, "group_size": 9}

    STAGE.run(Job(params=params, inputs={"package": tmp_path / "package"},
                  output=tmp_path / "made", resources={"memory_bytes": 1 << 30}))

    spec = coremltools.utils.load_spec(str(tmp_path / "made" / "Unet.mlpackage"))
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    tables = [op.inputs["lut"].arguments[0].value.type.tensorType for op in block.operations
              if op.type == "constexpr_lut_to_dense"]
    assert [[d.constant.size for d in table.dimensions] for table in tables] == [
        [4, 1, 1, 1, 16, 1], [4, 1, 1, 1, 64, 1]]
