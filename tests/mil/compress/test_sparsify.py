import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.optimize import coreml as cto

from sdbuild.base.errors import MILError
from sdbuild.mil.compress.sparsify import sparsify
from sdbuild.mil.execute.execute import Executor
from sdbuild.mil.files.package import read_package
from tests.mil.packages import (
    IOS15,
    IOS16,
    IOS18,
    changed,
    convolutions,
    dense,
    half,
    package,
    structure,
    weights,
)


def theirs(source, destination, config):
    config = cto.OptimizationConfig(config)
    return changed(source, destination, lambda model: cto.prune_weights(model, config))


def without_counts(operations):
    """A structure without how many elements are kept."""
    for _, _, arguments, _, kinds in operations:
        for found in (arguments, kinds):
            found.pop("nonzero_data", None)
    return operations


@pytest.mark.parametrize("target", [IOS16, IOS18])
@pytest.mark.parametrize(("options", "config"), [
    ({"sparsity": 0.7}, cto.OpMagnitudePrunerConfig(target_sparsity=0.7)),
    ({"sparsity": 0}, cto.OpMagnitudePrunerConfig(target_sparsity=0.0)),
    ({"sparsity": 1}, cto.OpMagnitudePrunerConfig(target_sparsity=1.0)),
    ({"threshold": 0.0400390625},
     cto.OpThresholdPrunerConfig(threshold=0.0400390625)),
    ({"threshold": 0.01}, cto.OpThresholdPrunerConfig(threshold=0.01)),  # too few: stays dense
])
def test_coremltools_reads_what_its_own_pruning_gives(tmp_path, target, options, config):
    source = convolutions(tmp_path / "source.mlpackage", target, layers=1)
    expected = theirs(source, tmp_path / "theirs.mlpackage", config)

    reports = sparsify(source, tmp_path / "ours.mlpackage", **options)

    ours = tmp_path / "ours.mlpackage"
    assert without_counts(structure(ours)) == without_counts(structure(expected))
    exact, found = weights(source), dense(ours, tmp_path)
    for name, value in dense(expected, tmp_path).items():  # more of its equal ones may be zero
        is_zero = (value == 0) & (exact[name] != 0)
        np.testing.assert_array_equal(found[name][~is_zero], value[~is_zero])
    for report in reports:
        if "sparsity" in options:
            zeros = (found[report.name] == 0).sum()
            assert zeros == int(options["sparsity"] * exact[report.name].size)
        gaps = exact[report.name].astype(float) - found[report.name].astype(float)
        assert np.abs(gaps).max() == pytest.approx(report.max_error)
        assert np.sqrt((gaps**2).mean()) == pytest.approx(report.rms_error)


def test_the_share_of_least_magnitude_becomes_zero_and_the_rest_stays(tmp_path):
    weight = half(64, 48)

    def body(x):
        return mb.matmul(x=x, y=weight, name="out")

    source = package(tmp_path / "source.mlpackage", body, ((1, 64), types.fp16))

    [report] = sparsify(source, tmp_path / "ours.mlpackage", sparsity=0.75)

    x = half(1, 64, seed=1)
    bound = np.sort(np.abs(weight.astype(np.float32)).reshape(-1))[64 * 48 * 3 // 4 - 1]
    pruned = np.where(np.abs(weight) > bound, weight, 0).astype(np.float32)
    assert report.bytes_after == 64 * 48 // 8 + 2 * (pruned != 0).sum() + 2 * 4
    found = Executor(read_package(tmp_path / "ours.mlpackage")).predict({"x": x})["out"]
    np.testing.assert_allclose(found, x.astype(np.float32) @ pruned, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("target", [IOS16, IOS18])
@pytest.mark.parametrize("sparsity", [0, 1])
def test_nothing_or_everything_can_become_zero(tmp_path, target, sparsity):
    weight = half(64, 48)
    weight[:, 0] = 0  # these take no bytes even where nothing is pruned

    def body(x):
        return mb.matmul(x=x, y=weight, name="out")

    source = package(tmp_path / "source.mlpackage", body, ((1, 64), types.fp16), target=target)

    [report] = sparsify(source, tmp_path / "ours.mlpackage", sparsity=sparsity)

    x, kept = half(1, 64, seed=1), np.count_nonzero(weight) * (1 - sparsity)
    shape_bytes = 8 if target is IOS16 else 0
    assert report.bytes_after == 64 * 48 // 8 + 2 * kept + shape_bytes
    assert report.max_error == np.abs(weight).max() * sparsity
    assert report.snr_db == (0 if sparsity else float("inf"))
    models = [read_package(tmp_path / f"{name}.mlpackage") for name in ("source", "ours")]
    exact, found = (Executor(model).predict({"x": x})["out"] for model in models)
    np.testing.assert_array_equal(found, exact * (1 - sparsity))


@pytest.mark.parametrize(("share", "zeros"), [(0.1, 307), (0.25, 768), (0.9999, 3071)])
def test_of_equal_magnitudes_only_as_many_as_the_share_become_zero(tmp_path, share, zeros):
    weight = np.where(half(64, 48) > 0, 0.5, -0.5).astype(np.float16)

    def body(x):
        return mb.matmul(x=x, y=weight, name="out")

    source = package(tmp_path / "source.mlpackage", body, ((1, 64), types.fp16))

    sparsify(source, tmp_path / "ours.mlpackage", sparsity=share)

    found = dense(tmp_path / "ours.mlpackage", tmp_path)["out_y_0"]
    expected = weight.copy().reshape(-1)
    expected[:zeros] = 0
    np.testing.assert_array_equal(found, expected.reshape(weight.shape))


@pytest.mark.parametrize(("target", "options", "message"), [
    (IOS15, {"sparsity": 0.5}, "opset CoreML5 has no packed weights"),
    (IOS16, {}, "expected either a sparsity or a threshold"),
    (IOS16, {"sparsity": 0.5, "threshold": 1.0}, "expected either a sparsity or a threshold"),
    (IOS16, {"sparsity": 1.5}, "a sparsity of 1.5, expected 0 to 1"),
    (IOS16, {"threshold": 0.1, "min_sparsity": -1}, "a least sparsity of -1, expected 0 to 1"),
    (IOS16, {"threshold": -1}, "a threshold of -1, expected 0 or more"),
    (IOS16, {"threshold": float("nan")}, "a threshold of nan, expected 0 or more"),
])
def test_what_cannot_be_pruned_so_is_refused(tmp_path, target, options, message):
    source = convolutions(tmp_path / "source.mlpackage", target, layers=1)

    with pytest.raises(MILError, match=message):
        sparsify(source, tmp_path / "ours.mlpackage", **options)

    assert [p.name for p in tmp_path.iterdir()] == ["source.mlpackage"]


def test_a_weight_that_is_not_finite_is_an_error_that_names_the_tensor(tmp_path):
    broken = half(64, 48)
    broken[1, 2] = np.nan

    def body(x):
        return mb.matmul(x=x, y=mb.const(val=broken, name="broken"), name="out")

    source = package(tmp_path / "source.mlpackage", body, ((1, 64), types.fp16))

    with pytest.raises(MILError, match="weight broken: 1 of 3072 values are NaN or infinite"):
        sparsify(source, tmp_path / "ours.mlpackage", threshold=0.1)
