import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.optimize import coreml as cto

from sdbuild.base.errors import MILError
from sdbuild.mil.compress.quantize import quantize
from tests.mil.packages import (
    IOS16,
    IOS17,
    IOS18,
    changed,
    convolutions,
    dense,
    half,
    package,
    squared_error,
    structure,
    weights,
)


def theirs(source, destination, **options):
    config = cto.OptimizationConfig(cto.OpLinearQuantizerConfig(
        mode="linear_symmetric", **options))
    return changed(source, destination, lambda model: cto.linear_quantize_weights(model, config))


@pytest.mark.parametrize("target,options,expected_options", [
    (IOS16, {}, {}),
    (IOS17, {}, {}),
    (IOS18, {}, {}),
    (IOS18, {"nbits": 4}, {"dtype": "int4"}),
    (IOS18, {"nbits": 4, "block_size": 12},
     {"dtype": "int4", "granularity": "per_block", "block_size": 12}),
    (IOS18, {"block_size": 7}, {}),  # 7 does not divide the 36 channels
])
def test_coremltools_reads_a_program_like_its_own_that_loses_no_more(
    tmp_path, target, options, expected_options
):
    source = convolutions(tmp_path / "source.mlpackage", target, layers=2)
    expected = theirs(source, tmp_path / "theirs.mlpackage", **expected_options)

    reports = quantize(source, tmp_path / "ours.mlpackage", **options)

    ours = tmp_path / "ours.mlpackage"
    assert structure(ours) == structure(expected)
    exact, found = weights(source), dense(ours, tmp_path)
    for report in reports:
        gaps = exact[report.name].astype(float) - found[report.name].astype(float)
        assert np.abs(gaps).max() == pytest.approx(report.max_error, rel=1e-3)
        assert np.sqrt((gaps**2).mean()) == pytest.approx(report.rms_error, rel=1e-3)
    assert (squared_error(source, ours, tmp_path)
            <= 1.002 * squared_error(source, expected, tmp_path))


def test_each_element_is_within_half_a_step_of_its_channel(tmp_path):
    def body(x):
        return mb.matmul(x=x, y=half(64, 48), name="out")

    source = package(tmp_path / "source.mlpackage", body, ((1, 64), types.fp16))

    [report] = quantize(source, tmp_path / "ours.mlpackage")

    exact = weights(source)["out_y_0"].astype(float)
    found = dense(tmp_path / "ours.mlpackage", tmp_path)["out_y_0"].astype(float)
    step = np.abs(exact).max(axis=0) / 127  # an output channel is a column
    assert report.groups == 48
    assert (np.abs(exact - found) <= 0.53 * step).all()  # the scale and result are rounded


def test_a_channel_of_zeros_stays_zero(tmp_path):
    weight = half(64, 48)
    weight[:, 7] = 0

    def body(x):
        return mb.matmul(x=x, y=weight, name="out")

    source = package(tmp_path / "source.mlpackage", body, ((1, 64), types.fp16))

    quantize(source, tmp_path / "ours.mlpackage")

    found = dense(tmp_path / "ours.mlpackage", tmp_path)["out_y_0"]
    assert not found[:, 7].any()


def quantized(tmp_path, weight, dtype=types.fp16, **options):
    """A weight of 64 x 48, by columns, as coremltools reads it after quantization."""

    def body(x):
        return mb.matmul(x=x, y=weight, name="out")

    source = package(tmp_path / "source.mlpackage", body, ((1, 64), dtype), target=IOS18)
    quantize(source, tmp_path / "ours.mlpackage", **options)
    return dense(tmp_path / "ours.mlpackage", tmp_path)["out_y_0"].astype(np.float64)


@pytest.mark.parametrize("nbits", [4, 8])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_greatest_finite_weights_stay_finite(tmp_path, nbits, dtype):
    greatest = float(np.finfo(dtype).max)
    weight = np.linspace(-greatest / 2, greatest / 2, 64 * 48).astype(dtype) * dtype(2)
    weight = weight.reshape(64, 48)
    assert weight.max() == greatest

    found = quantized(tmp_path, weight, {np.float16: types.fp16, np.float32: types.fp32}[dtype],
                      nbits=nbits)

    step = np.abs(weight.astype(np.float64)).max(0) / (2 ** (nbits - 1) - 1)
    assert np.isfinite(found).all()
    assert (np.abs(found - weight) <= 0.6 * step).all()


@pytest.mark.parametrize("magnitude", [2.0**-24, 1e-6, 3.5e-6])
def test_weights_too_small_for_a_scale_of_their_own_lose_nothing(tmp_path, magnitude):
    """They are multiples of the least fp16, and fewer than 64 of them."""
    random = np.random.default_rng(0).uniform(-magnitude, magnitude, (64, 48))
    weight = random.astype(np.float16)
    assert weight.any()

    np.testing.assert_array_equal(quantized(tmp_path, weight), weight)


@pytest.mark.parametrize("magnitude", [5e-6, 1e-5, 1.2e-5, 3e-5, 1e-3])
def test_small_weights_are_within_one_step_of_the_scale_that_fp16_has(tmp_path, magnitude):
    weight = np.random.default_rng(0).uniform(-magnitude, magnitude, (64, 48)).astype(np.float16)

    found = quantized(tmp_path, weight)

    nearest = (np.abs(weight.astype(np.float32)).max(0) / 127).astype(np.float16).astype(float)
    integers = np.clip(np.rint(weight / nearest), -127, 127)
    before = (integers * nearest).astype(np.float16).astype(float)
    errors, earlier = (((values - weight) ** 2).sum(0) for values in (found, before))
    assert (errors <= earlier * 1.0001).all()
    assert np.abs(found - weight).max() <= magnitude / 127 + 2.0**-24


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_an_error_that_names_the_tensor(tmp_path, bad):
    weight = half(64, 48)
    weight[1, 2] = bad

    def body(x):
        return mb.matmul(x=x, y=mb.const(val=weight, name="broken"), name="out")

    source = package(tmp_path / "source.mlpackage", body, ((1, 64), types.fp16))

    with pytest.raises(MILError, match="weight broken: 1 of 3072 values are NaN or infinite"):
        quantize(source, tmp_path / "ours.mlpackage")


@pytest.mark.parametrize("options,message", [
    ({"nbits": 4}, "integers of 4 bits need opset CoreML8, found CoreML6"),
    ({"block_size": 4}, "blocks of channels need opset CoreML8, found CoreML6"),
    ({"nbits": 5}, "integers of 5 bits, expected one of 4, 8"),
])
def test_what_the_opset_lacks_is_refused(tmp_path, options, message):
    source = convolutions(tmp_path / "source.mlpackage", layers=1)

    with pytest.raises(MILError, match=message):
        quantize(source, tmp_path / "ours.mlpackage", **options)
