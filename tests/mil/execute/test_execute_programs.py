"""Whole programs: of coremltools' builder against its value inference, and real ones."""

from dataclasses import replace
from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil.mil import get_new_symbol

from sdbuild.mil.execute.execute import Executor
from sdbuild.mil.files.package import read_package
from sdbuild.mil.files.read import read_model
from tests.mil.operations import floats
from tests.mil.packages import IOS15, IOS16, IOS17, IOS18, mb, package, quiet, types

UNIT = np.tanh(floats(2, 4, 3, 5))
FIXTURES = Path(__file__).parents[2] / "fixtures" / "mlmodelc"

CALLS = {
    "abs_": lambda x: mb.abs(x=x),
    "argmax": lambda x: mb.reduce_argmax(x=x, axis=1, keep_dims=True),
    "argsort": lambda x: mb.argsort(x=x, axis=2, ascending=True),
    "band": lambda x: mb.band_part(x=x, lower=1, upper=0),
    "clamped": lambda x: mb.clamped_relu(x=x, alpha=0.1, beta=0.4),
    "clip": lambda x: mb.clip(x=x, alpha=-0.2, beta=0.3),
    "concatenated": lambda x: mb.concat(values=[x, mb.relu(x=x)], axis=-1),
    "elu": lambda x: mb.elu(x=x, alpha=0.7),
    "expanded": lambda x: mb.expand_dims(x=x, axes=[0]),
    "floored": lambda x: mb.floor_div(x=x, y=np.float32(0.3)),
    "gathered": lambda x: mb.gather(x=x, indices=[2, 0], axis=1),
    "gelu": lambda x: mb.gelu(x=x, mode="TANH_APPROXIMATION"),
    "inverse": lambda x: mb.inverse(x=x, epsilon=3.0),
    "l2": lambda x: mb.l2_norm(x=x, epsilon=1e-3),
    "layer": lambda x: mb.layer_norm(x=x, axes=[1, -1], epsilon=1e-3),
    "linear": lambda x: mb.linear(x=x, weight=floats(6, 5, seed=3), bias=floats(6, seed=4)),
    "log_sum": lambda x: mb.reduce_log_sum_exp(x=x, axes=[1], keep_dims=False),
    "modulo": lambda x: mb.mod(x=x, y=np.float32(-0.3)),
    "padded": lambda x: mb.pad(x=x, pad=[1, 0, 2, 1], mode="reflect"),
    "product": lambda x: mb.matmul(x=x, y=x, transpose_y=True),
    "reshaped": lambda x: mb.reshape(x=x, shape=[0, -1, 1, 15]),
    "sliced": lambda x: mb.slice_by_index(
        x=x, begin=[0, 3, 0, 1], end=[2, 0, 0, -1], stride=[1, -2, 1, 1],
        end_mask=[False, False, True, False]),
    "soft": lambda x: mb.softmax(x=x, axis=1),
    "softplus": lambda x: mb.softplus(x=x),
    "tiled": lambda x: mb.tile(x=x, reps=[1, 2, 1, 1]),
    "transposed": lambda x: mb.transpose(x=x, perm=[0, 2, 3, 1]),
}


@pytest.mark.parametrize("target", [IOS15, IOS16, IOS17, IOS18])
def test_programs_of_coremltools_agree_with_its_own_values(tmp_path, target):
    expected = {}

    def body(x):
        expected.update({name: call(UNIT).val for name, call in CALLS.items()})
        return tuple(mb.identity(x=call(x), name=name) for name, call in CALLS.items())

    path = package(tmp_path / "ops.mlpackage", body, (UNIT.shape, types.fp32), target=target)
    found = Executor(read_package(path)).predict({"x": UNIT})

    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("target", [IOS15, IOS16, IOS17, IOS18])
def test_a_shape_that_is_computed_from_elements_of_other_shapes_runs(tmp_path, target):
    """`torch.full((len(x), 2), 7)`: `shape`, `gather` of a scalar, `concat` of scalars."""
    rows = ct.RangeDim(1, 8)

    with quiet():
        @mb.program(input_specs=[mb.TensorSpec((get_new_symbol(), 5))], opset_version=target)
        def program(x):
            size = mb.gather(x=mb.shape(x=x), indices=0, axis=0)
            shape = mb.concat(values=[size, np.int32(2)], axis=0)
            return mb.fill(shape=shape, value=np.float32(7))

        ct.convert(program, inputs=[ct.TensorType("x", (rows, 5))],
                   minimum_deployment_target=target, skip_model_load=True,
                   compute_precision=ct.precision.FLOAT32).save(str(tmp_path / "m.mlpackage"))
    model = read_package(tmp_path / "m.mlpackage")
    (found,) = Executor(model).predict({"x": floats(3, 5)}).values()

    assert {"gather", "concat"} <= {o.type for o in model.program.main.block.operations}
    np.testing.assert_array_equal(found, np.full((3, 2), 7, np.float32))


def inputs_of(model):
    return {item.name: floats(*item.type.shape) * np.float32(0.1)
            for item in model.program.main.inputs}


@pytest.mark.parametrize(("name", "difference"), [
    ("silero_int8", 0.01), ("silero_palette_8bit", 0.01), ("silero_palette_4bit", 0.05),
])
def test_compressed_programs_are_close_to_their_original(name, difference):
    original = read_package(FIXTURES / "silero_fp16" / "source.mlpackage")
    compressed = read_package(FIXTURES / name / "source.mlpackage")

    expected = Executor(original).predict(inputs_of(original))["vad_output"]
    found = Executor(compressed).predict(inputs_of(compressed))["vad_output"]

    assert 0 < abs(found - expected).item() < difference


@pytest.mark.parametrize("name", [
    "old_silero_pruned_int8", "silero256_palette_2bit", "silero_fp16", "silero_int8",
])
def test_packages_and_what_apple_compiled_from_them_give_the_same_bits(name):
    source = read_model(FIXTURES / name / "source.mlpackage")
    compiled = read_model(FIXTURES / name / "expected.mlmodelc")
    # the weight file is kept once, in the package
    compiled = replace(compiled, root=source.root, source=source.source)

    first, second = (Executor(m).predict(inputs_of(m)) for m in (source, compiled))

    assert first.keys() == second.keys()
    assert all(np.isfinite(first[k]).all() and np.array_equal(first[k], second[k]) for k in first)
