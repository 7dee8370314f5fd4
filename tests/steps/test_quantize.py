"""quantize on a small package: integers for all large weights, and for what some layers are given.
"""

import json

import pytest

from sdbuild.engine.stage import Job
from sdbuild.mil.compress.activations import LayerInput, write_layer_inputs
from sdbuild.mil.files.package import read_package
from sdbuild.steps import quantize
from tests.mil.packages import IOS17, convolutions


@pytest.fixture
def inputs(tmp_path):
    """A package of four convolutions, the second of which loses much."""
    package = tmp_path / "package"
    package.mkdir()
    convolutions(package / "Unet.mlpackage", IOS17)
    write_layer_inputs(tmp_path / "ranges.json", [
        LayerInput(layer=f"conv{number}", value="x", largest=3.0, work=100,
                   snr_db=20.0 if number == 1 else 40.0) for number in range(4)])
    return {"package": package, "ranges": tmp_path / "ranges.json"}


def test_a_layer_that_loses_too_much_is_given_fp16_and_has_integer_weights(inputs, tmp_path):
    (tmp_path / "output").mkdir()
    job = Job(params={"nbits": 8, "least_snr_db": 30.0}, inputs=inputs, output=tmp_path / "output",
              resources={"memory_bytes": 1 << 30})

    facts = quantize.STAGE.run(job)

    block = read_package(tmp_path / "output" / "Unet.mlpackage").program.main.block
    makers = {out.name: op.type for op in block.operations for out in op.outputs}
    convs = {op.name: op for op in block.operations if op.type == "conv"}
    assert {name: makers.get(op.inputs["x"][0]) for name, op in convs.items()} == {
        "conv0": "dequantize", "conv1": "relu", "conv2": "dequantize", "conv3": "dequantize"}
    assert {makers[op.inputs["weight"][0]] for op in convs.values()} == {
        "constexpr_affine_dequantize"}
    assert (facts["layers"], facts["rounded"], facts["work"]) == (4, 3, 0.75)
    assert len(json.loads(json.dumps(facts))["tensors"]) == 4
