"""Quantized activations against coremltools' own pass, and against the formula in numpy."""

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.passes.graph_pass import PassOption
from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY
from coremltools.models import utils as coremltools_utils
from coremltools.optimize import coreml as cto

from sdbuild.base.errors import MILError
from sdbuild.mil.compress.activations import (
    LayerInput,
    chosen,
    layers,
    read_layer_inputs,
    write_layer_inputs,
)
from sdbuild.mil.compress.quantize import quantize
from sdbuild.mil.edit.chunk import chunk
from sdbuild.mil.execute.execute import Executor
from sdbuild.mil.execute.layer_inputs import observed
from sdbuild.mil.files.arrays import to_array
from sdbuild.mil.files.package import read_package
from sdbuild.mil.ir.program import Value
from tests.mil.packages import IOS16, IOS17, IOS18, changed, convolutions, half, package

PREFIX = "compression::insert_prefix_quantize_dequantize_pair"


def theirs(source, destination, largest):
    """The package as coremltools quantizes activations, then weights. Its public function observes
    them by predictions, which need a Mac, so its pass is given ranges here."""
    kind = cto.OpLinearQuantizerConfig(mode="linear_symmetric")
    of_layers = cto.OptimizationConfig(op_type_configs={"conv": kind, "linear": kind})
    insert = PASS_REGISTRY[PREFIX]
    insert.set_options([
        PassOption("config", of_layers),
        PassOption("activation_stats", {
            name: {"rmin": -bound, "rmax": bound} for name, bound in largest.items()}),
    ])

    def both(model):
        quantized = coremltools_utils._apply_graph_pass(model, insert, spec_version=8)
        return cto.linear_quantize_weights(quantized, cto.OptimizationConfig(kind))

    return changed(source, destination, both)


def mixed(path, target=IOS17, dtype=types.fp16):
    """Two convolutions of one value, a sum that also takes it, and a linear layer."""
    weight = half if dtype is types.fp16 else lambda *s, **k: half(*s, **k).astype(np.float32)

    def body(x):
        x = mb.tanh(x=x, name="squashed")
        left = mb.conv(x=x, weight=weight(16, 16, 3, 3), pad_type="same", name="left")
        right = mb.conv(x=x, weight=weight(16, 16, 3, 3, seed=1), pad_type="same", name="right")
        both = mb.add(x=mb.mul(x=left, y=right, name="product"), y=x, name="sum")
        rows = mb.reshape(x=both, shape=(16, 64), name="rows")
        return mb.linear(x=rows, weight=weight(48, 64, seed=2), name="out")

    return package(path, body, ((1, 16, 8, 8), dtype), target=target)


def groups(**options):
    return [[sample] for sample in samples(**options)]


def samples(count=3, shape=(1, 16, 8, 8), name="x"):
    rng = np.random.default_rng(0)
    return [{name: rng.standard_normal(shape).astype(np.float32)} for _ in range(count)]


def found_in(path):
    """Of each layer of a package the pair that its input passes, from the last operation, what is
    before it, and what its weight is; and the scales of all pairs."""
    model = read_package(path)
    block = model.program.main.block
    makers = {out.name: op for op in block.operations for out in op.outputs}

    def constant(binding):
        value = binding if isinstance(binding, Value) else makers[binding].attributes["val"]
        return value.data if value.type.dtype == "string" else to_array(model, value)

    found, scales = {}, {}
    for operation in block.operations:
        if operation.type in ("conv", "linear"):
            chain, at = [], makers.get(operation.inputs["x"][0])
            while at is not None and at.type in ("quantize", "dequantize"):
                given = {key: constant(bindings[0]) for key, bindings in at.inputs.items()
                         if key != "input"}
                chain.append((at.type, at.outputs[0].type, sorted(given), str(given["scale"].dtype),
                              given["scale"].shape, given.get("output_dtype")))
                scales[f"{operation.name}, {at.type}"] = float(given["scale"])
                at = makers.get(at.inputs["input"][0])
            weight = makers[operation.inputs["weight"][0]]
            found[operation.name] = (chain, at and at.name, weight.type, weight.outputs[0].type)
    return found, scales


@pytest.mark.parametrize("dtype", [types.fp16, types.fp32])
@pytest.mark.parametrize("target", [IOS17, IOS18])
def test_each_layer_has_the_pair_that_coremltools_gives_it(tmp_path, target, dtype):
    source = mixed(tmp_path / "source.mlpackage", target, dtype)
    inputs = observed(read_package(source), groups())
    ours = tmp_path / "ours.mlpackage"

    quantize(source, ours, activations={item.layer: item.largest for item in inputs})

    expected = theirs(source, tmp_path / "theirs.mlpackage",
                      {item.value: item.largest for item in inputs})
    (found, scales), (wanted, wanted_scales) = found_in(ours), found_in(expected)
    assert set(found) == {"left", "right", "out"}
    assert found == wanted
    digits = 2**-10 if dtype is types.fp32 else 0  # coremltools has ranges in fp16, also of fp32
    assert scales == pytest.approx(wanted_scales, rel=digits, abs=0)
    assert len(scales) == 6
    assert found_in(changed(ours, tmp_path / "read.mlpackage", lambda model: model))[0] == found


def test_ranges_and_ratios_are_those_of_numpy(tmp_path):
    source = mixed(tmp_path / "source.mlpackage", dtype=types.fp32)
    given = samples()

    found = {item.layer: item for item in observed(read_package(source), groups())}

    squashed = [np.tanh(sample["x"]) for sample in given]
    assert found["left"].value == "squashed"
    assert found["left"].largest == pytest.approx(max(np.abs(x).max() for x in squashed))
    rows = [sums(Executor(read_package(source)), sample) for sample in given]
    largest = max(np.abs(x).max() for x in rows)
    assert found["out"].largest == pytest.approx(largest, rel=1e-6)
    weight = half(48, 64, seed=2).astype(np.float64)
    scale = np.float32(largest / 127)
    signal = sum(((x @ weight.T) ** 2).sum() for x in rows)
    noise = sum((((np.rint(x / scale) * scale - x) @ weight.T) ** 2).sum() for x in rows)
    assert found["out"].snr_db == pytest.approx(10 * np.log10(signal / noise), abs=0.1)
    assert found["out"].work == 16 * 48 * 64
    assert found["left"].work == 16 * 8 * 8 * 16 * 9


def sums(executor, sample):
    """The input of the linear layer."""
    return next(seen.outputs["rows"].double().numpy() for seen in executor.trace(sample)
                if "rows" in seen.outputs)


def test_layers_of_one_value_share_a_pair_and_all_else_takes_it_unrounded(tmp_path):
    source, ours = mixed(tmp_path / "source.mlpackage"), tmp_path / "ours.mlpackage"

    quantize(source, ours, activations={"left": 1.0, "right": 1.0})

    operations = {op.name: op for op in read_package(ours).program.main.block.operations}
    kinds = [op.type for op in operations.values()]
    assert kinds.count("quantize") == kinds.count("dequantize") == 1
    assert operations["left"].inputs["x"] == operations["right"].inputs["x"]
    assert operations["sum"].inputs["y"] == ("squashed",)
    assert operations["out"].inputs["x"] == ("rows",)


def test_a_quantized_program_computes_on_rounded_inputs(tmp_path):
    source, ours = mixed(tmp_path / "source.mlpackage", dtype=types.fp32), tmp_path / "o.mlpackage"
    (sample,) = samples(1)
    weights = tmp_path / "w.mlpackage"
    quantize(source, weights)

    quantize(source, ours, activations={"out": 0.5})  # clips

    rows = sums(Executor(read_package(weights)), sample)
    scale = np.float32(0.5 / 127)
    rounded = np.clip(np.rint(rows / scale), -128, 127) * scale
    weight = next(seen.inputs["weight"].double().numpy()
                  for seen in Executor(read_package(ours)).trace(sample)
                  if seen.operation.name == "out")
    made = Executor(read_package(ours)).predict(sample)["out"]
    assert np.abs(rows).max() > 0.6
    np.testing.assert_allclose(made, rounded @ weight.T, atol=1e-4)


def test_a_layer_that_is_given_zeros_gets_zeros(tmp_path):
    source, ours = mixed(tmp_path / "source.mlpackage"), tmp_path / "ours.mlpackage"
    zeros = {"x": np.zeros((1, 16, 8, 8), np.float32)}

    inputs = observed(read_package(source), [[zeros]])
    quantize(source, ours, activations={item.layer: item.largest for item in inputs})

    assert {item.largest for item in inputs} == {0.0}
    assert {item.snr_db for item in inputs} == {np.inf}
    assert not Executor(read_package(ours)).predict(zeros)["out"].any()


def test_what_was_observed_is_read_as_it_was_written(tmp_path):
    found = [layer("a", 31.2), layer("b", np.inf)]

    write_layer_inputs(tmp_path / "ranges.json", found)

    assert read_layer_inputs(tmp_path / "ranges.json") == found


def layer(name, snr_db, work=1000):
    return LayerInput(layer=name, value="x", largest=2.5, work=work, snr_db=snr_db)


def test_errors_of_layers_add_up_and_those_that_cost_most_for_their_work_are_left_out_first():
    """Three of 30 dB are 25.2 dB together, two 27."""
    found = [layer("a", 30.0), layer("b", 30.0, work=10), layer("c", 30.0), layer("d", np.inf, 0)]

    def names(least_db):
        return "".join(item.layer for item in chosen(found, least_db))

    assert names(25) == "abcd"
    assert names(26.5) == "acd"
    assert names(29) == "cd"
    assert names(31) == "d"


def test_samples_whose_outputs_matter_together_are_measured_together(tmp_path):
    source = mixed(tmp_path / "source.mlpackage", dtype=types.fp32)
    one, other = samples(2)

    def difference(outputs):
        return outputs[0]["out"] - outputs[1]["out"]

    def ratio(second):
        found = observed(read_package(source), [[one, second]], matters=difference)
        return {item.layer: item.snr_db for item in found}["left"]

    near = {"x": one["x"] + np.float32(1e-3)}
    assert ratio(near) < ratio(other) - 20
    assert ratio(one) == np.inf


def test_chunks_are_never_cut_within_a_pair(tmp_path):
    source, ours = convolutions(tmp_path / "c.mlpackage", IOS17), tmp_path / "ours.mlpackage"
    names = layers(read_package(source).program.main)
    quantize(source, ours, activations=dict.fromkeys(names, 4.0))

    chunk(ours, [tmp_path / "one.mlpackage", tmp_path / "two.mlpackage"])

    for part in ("one", "two"):
        found, _ = found_in(tmp_path / f"{part}.mlpackage")
        for chain, *_ in found.values():
            assert [kind for kind, *_ in chain] == ["dequantize", "quantize"]


@pytest.mark.parametrize(("target", "layer", "said"), [
    (IOS16, "conv0", "quantized activations need opset CoreML7, found CoreML6"),
    (IOS17, "conv9", "no layer with constant weights is called 'conv9'; did you mean"),
])
def test_what_no_program_has_is_refused(tmp_path, target, layer, said):
    source = convolutions(tmp_path / "source.mlpackage", target, layers=2)

    with pytest.raises(MILError) as refused:
        quantize(source, tmp_path / "ours.mlpackage", activations={layer: 1.0})

    assert said in str(refused.value)
    assert not (tmp_path / "ours.mlpackage").exists()


def test_an_input_that_is_not_finite_is_an_error_that_names_the_layer(tmp_path):
    source = convolutions(tmp_path / "source.mlpackage", IOS17, layers=1)
    bad = samples(1, (1, 36, 8, 8))[0]
    bad["x"][0, 3, 2, 1] = np.nan

    with pytest.raises(MILError, match="conv conv0: its input x is not finite"):
        observed(read_package(source), [[bad]])
    with pytest.raises(MILError, match="no samples to observe"):
        observed(read_package(source), [])
