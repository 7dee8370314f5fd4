import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.optimize import coreml as cto

from sdbuild.base.errors import MILError
from sdbuild.mil.compress.palettize import palettize
from sdbuild.mil.files.package import read_package
from tests.mil.packages import (
    IOS15,
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


def theirs(source, destination, mode="kmeans", **options):
    """coremltools' own palettes; its k-means of small tensors needs scikit-learn."""
    config = cto.OptimizationConfig(cto.OpPalettizerConfig(mode=mode, **options))
    return changed(source, destination, lambda model: cto.palettize_weights(model, config))


@pytest.mark.parametrize("target,nbits", [
    *((IOS16, bits) for bits in (1, 4, 6, 8)),
    (IOS17, 4),
    *((IOS18, bits) for bits in (2, 3, 6)),
])
def test_coremltools_reads_the_nearest_entries_in_a_program_like_its_own(tmp_path, target, nbits):
    source = convolutions(tmp_path / "source.mlpackage", target, layers=2)
    expected = theirs(source, tmp_path / "theirs.mlpackage", nbits=nbits)

    reports = palettize(source, tmp_path / "ours.mlpackage", nbits=nbits)

    ours = tmp_path / "ours.mlpackage"
    assert structure(expected) == structure(ours)
    assert read_package(source).description == read_package(ours).description
    exact, found = weights(source), dense(ours, tmp_path)
    for report in reports:
        gaps = exact[report.name].astype(float) - found[report.name].astype(float)
        assert np.abs(gaps).max() == pytest.approx(report.max_error)
        assert np.sqrt((gaps**2).mean()) == pytest.approx(report.rms_error)
        assert len(np.unique(found[report.name].astype(float))) <= 2**nbits
    assert squared_error(source, ours, tmp_path) <= squared_error(source, expected, tmp_path)


def test_small_tensors_get_better_tables_than_uniform_ones(tmp_path):
    def body(x):
        return mb.matmul(x=x, y=half(64, 64), name="out")

    source = package(tmp_path / "source.mlpackage", body, ((1, 64), types.fp16))
    expected = theirs(source, tmp_path / "theirs.mlpackage", nbits=4, mode="uniform")

    palettize(source, tmp_path / "ours.mlpackage", nbits=4)

    assert (squared_error(source, tmp_path / "ours.mlpackage", tmp_path)
            < squared_error(source, expected, tmp_path))


def test_the_constants_taken_are_those_that_coremltools_takes(tmp_path):
    def body(ids, x):
        embedded = mb.gather(x=half(70, 64), indices=ids, axis=0, name="embedded")
        exactly_2048 = mb.matmul(x=embedded, y=half(64, 32, seed=2), name="small")
        fp32 = mb.matmul(x=x, y=half(64, 65).astype(np.float32), name="full")
        vector = mb.add(x=half(5000), y=mb.reduce_sum(x=exactly_2048), name="vector")
        return exactly_2048, fp32, vector

    source = package(tmp_path / "source.mlpackage", body, ((2,), types.int32),
                     ((2, 64), types.fp32), target=IOS16)
    expected = theirs(source, tmp_path / "theirs.mlpackage", nbits=2, mode="uniform")

    reports = palettize(source, tmp_path / "ours.mlpackage", nbits=2)

    assert structure(expected) == structure(tmp_path / "ours.mlpackage")
    assert len(reports) == 2
    assert (squared_error(source, tmp_path / "ours.mlpackage", tmp_path)
            <= squared_error(source, expected, tmp_path))


@pytest.mark.parametrize("group_size", [4, 5, 36])
def test_groups_of_channels_have_tables_of_their_own(tmp_path, group_size):
    source = convolutions(tmp_path / "source.mlpackage", IOS18, layers=1)
    expected = theirs(source, tmp_path / "theirs.mlpackage", nbits=2, mode="uniform",
                      granularity="per_grouped_channel" if 36 % group_size == 0 else "per_tensor",
                      group_size=group_size)

    [report] = palettize(source, tmp_path / "ours.mlpackage", nbits=2, group_size=group_size)

    groups = 36 // group_size if 36 % group_size == 0 else 1
    assert report.groups == groups
    assert structure(tmp_path / "ours.mlpackage") == structure(expected)
    found = dense(tmp_path / "ours.mlpackage", tmp_path)["conv0_weight_0"]
    for group in np.split(found, groups):
        assert len(np.unique(group.astype(float))) <= 4
    assert (squared_error(source, tmp_path / "ours.mlpackage", tmp_path)
            < squared_error(source, expected, tmp_path))


@pytest.mark.parametrize(("target", "options", "bits"), [
    (IOS16, {"nbits": 2}, 2), (IOS16, {"nbits": 1}, 8),
    (IOS18, {"nbits": 3}, 3), (IOS18, {"nbits": 2, "group_size": 4}, 2),
])
def test_weights_that_are_palettes_already_keep_them(tmp_path, target, options, bits):
    source = convolutions(tmp_path / "source.mlpackage", target, layers=1)
    palettize(source, tmp_path / "first.mlpackage", **options)
    unpacked = changed(tmp_path / "first.mlpackage", tmp_path / "unpacked.mlpackage",
                       cto.decompress_weights)

    [report] = palettize(unpacked, tmp_path / "again.mlpackage", **options | {"nbits": 8})

    assert (report.bits, report.rms_error) == (bits, 0)
    [first], [again] = (
        [array for array in dense(tmp_path / f"{name}.mlpackage", tmp_path).values()
         if array.ndim == 4] for name in ("first", "again"))
    assert np.array_equal(first.astype(float), again.astype(float))


def test_groups_follow_the_channels_of_the_operation(tmp_path):
    def body(x):
        return mb.matmul(x=x, y=half(64, 48), name="out")

    source = package(tmp_path / "source.mlpackage", body, ((1, 64), types.fp16), target=IOS18)
    expected = theirs(source, tmp_path / "theirs.mlpackage", nbits=1, mode="uniform",
                      granularity="per_grouped_channel", group_size=16)

    palettize(source, tmp_path / "ours.mlpackage", nbits=1, group_size=16)

    assert structure(tmp_path / "ours.mlpackage") == structure(expected)
    found = dense(tmp_path / "ours.mlpackage", tmp_path)["out_y_0"]
    for group in np.split(found, 3, axis=1):
        assert len(np.unique(group.astype(float))) == 2


def uneven(channels, *shape):
    """Weights whose channels have magnitudes from 1 down to 1/64; one has none."""
    weight = half(channels, *shape) * np.geomspace(1, 1 / 64, channels).reshape(-1, 1)
    weight[3] = 0
    return weight.astype(np.float16)


def test_scaled_channels_have_the_operations_of_coremltools(tmp_path):
    source = convolutions(tmp_path / "source.mlpackage", IOS18, layers=1)
    expected = theirs(source, tmp_path / "theirs.mlpackage", nbits=2, mode="uniform",
                      granularity="per_grouped_channel", group_size=4,
                      enable_per_channel_scale=True)

    [report] = palettize(source, tmp_path / "ours.mlpackage", nbits=2, group_size=4, is_scaled=True)

    def names(path):
        return [(kind, name, sorted(arguments), sorted(attributes))
                for kind, name, arguments, _, attributes in structure(path)]

    assert names(tmp_path / "ours.mlpackage") == names(expected)
    assert report.groups == 9
    assert (squared_error(source, tmp_path / "ours.mlpackage", tmp_path)
            < squared_error(source, expected, tmp_path))


def test_coremltools_reads_scaled_channels_as_multiples_of_shared_entries(tmp_path):
    weight = uneven(48, 64)

    def body(x):
        return mb.linear(x=x, weight=weight, bias=half(48), name="out")

    source = package(tmp_path / "source.mlpackage", body, ((1, 64), types.fp16), target=IOS18)

    [report] = palettize(source, tmp_path / "ours.mlpackage", nbits=4, is_scaled=True)
    palettize(source, tmp_path / "plain.mlpackage", nbits=4)

    found = dense(tmp_path / "ours.mlpackage", tmp_path)["out_weight_0"].astype(float)
    scales = np.abs(weight.astype(float)).max(axis=1, keepdims=True)
    entries = np.divide(found, scales, where=scales > 0, out=np.zeros_like(found))
    assert (np.diff(np.sort(entries, axis=None)) > 0.02).sum() < 16
    assert not found[3].any()
    gaps = weight.astype(float) - found
    assert np.abs(gaps).max() == pytest.approx(report.max_error, rel=1e-3)
    assert np.sqrt((gaps**2).mean()) == pytest.approx(report.rms_error, rel=1e-3)
    assert ((gaps**2 / np.maximum(scales, 1e-9) ** 2).mean()
            < 0.5 * np.square((weight - dense(tmp_path / "plain.mlpackage", tmp_path)[
                "out_weight_0"].astype(float)) / np.maximum(scales, 1e-9)).mean())


def test_workers_change_nothing_in_the_bytes(tmp_path):
    source = convolutions(tmp_path / "source.mlpackage")

    palettize(source, tmp_path / "one.mlpackage", nbits=6)
    palettize(source, tmp_path / "three.mlpackage", nbits=6, workers=3)

    files = [p.relative_to(tmp_path / "one.mlpackage")
             for p in sorted((tmp_path / "one.mlpackage").rglob("*")) if p.is_file()]
    assert len(files) == 3
    for file in files:
        assert ((tmp_path / "one.mlpackage" / file).read_bytes()
                == (tmp_path / "three.mlpackage" / file).read_bytes())


def test_patterns_choose_bits_and_leave_tensors_alone(tmp_path):
    source = convolutions(tmp_path / "source.mlpackage", layers=3)

    reports = palettize(source, tmp_path / "ours.mlpackage", nbits=2, skip=["conv0_*"],
                        mixed={"conv1_weight*": 8})

    chosen = {report.name: report.bits for report in reports}
    assert chosen == {"conv1_weight_0": 8, "conv2_weight_0": 2}
    np.testing.assert_array_equal(
        weights(source)["conv0_weight_0"],
        dense(tmp_path / "ours.mlpackage", tmp_path)["conv0_weight_0"])


def test_operation_types_can_be_skipped(tmp_path):
    source = convolutions(tmp_path / "source.mlpackage", layers=2)

    reports = palettize(source, tmp_path / "ours.mlpackage", nbits=4, skip_types=["conv"])

    assert reports == ()
    assert structure(source) == structure(tmp_path / "ours.mlpackage")


def test_a_weight_used_twice_is_stored_once(tmp_path):
    shared = half(48, 64)

    def body(x):
        table = mb.const(val=shared, name="table")
        return mb.add(x=mb.matmul(x=x, y=table, transpose_y=True), y=mb.matmul(
            x=mb.relu(x=x), y=table, transpose_y=True), name="out")

    source = package(tmp_path / "source.mlpackage", body, ((1, 64), types.fp16))

    reports = palettize(source, tmp_path / "ours.mlpackage", nbits=4)

    assert len(reports) == 1
    ours = read_package(tmp_path / "ours.mlpackage")
    assert ours.reader("@model_path/weights/weight.bin").count == 2  # indices and table
    assert {"table"} == set(dense(tmp_path / "ours.mlpackage", tmp_path)) - {
        name for name in weights(source) if name != "table"}


@pytest.mark.parametrize("target,options,message", [
    (IOS15, {"nbits": 4}, "opset CoreML5 has no packed weights"),
    (IOS16, {"nbits": 3}, "palettes of 3 bits need opset CoreML8, found CoreML6"),
    (IOS16, {"nbits": 5}, "palettes of 5 bits, expected one of 1, 2, 3, 4, 6, 8"),
    (IOS16, {"nbits": 4, "mixed": {"conv*": 7}}, "palettes of 7 bits, expected one of"),
    (IOS17, {"nbits": 4, "group_size": 4}, "palettes of channel groups need opset CoreML8"),
    (IOS17, {"nbits": 4, "is_scaled": True}, "palettes with scales need opset CoreML8"),
    (IOS18, {"nbits": 4, "group_size": 0}, "groups of 0 channels, expected one or more"),
    (IOS16, {"nbits": 4, "skip": ["comv*"]}, r"no constant is called 'comv\*'"),
])
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    tmp_path, target, options, message
):
    source = convolutions(tmp_path / "source.mlpackage", target, layers=1)

    with pytest.raises(MILError, match=message):
        palettize(source, tmp_path / "ours.mlpackage", **options)

    assert [p.name for p in tmp_path.iterdir()] == ["source.mlpackage"]


def test_nothing_is_palettized_twice(tmp_path):
    source = convolutions(tmp_path / "source.mlpackage", layers=1)
    palettize(source, tmp_path / "six.mlpackage", nbits=6)

    with pytest.raises(MILError, match="weights are packed already, the first is"):
        palettize(tmp_path / "six.mlpackage", tmp_path / "four.mlpackage", nbits=4)


def test_an_infinite_weight_is_an_error_that_names_the_tensor(tmp_path):
    broken = half(64, 64)
    broken[3, 4] = np.inf

    def body(x):
        return mb.matmul(x=x, y=mb.const(val=broken, name="broken"), name="out")

    source = package(tmp_path / "source.mlpackage", body, ((1, 64), types.fp16))

    with pytest.raises(MILError, match="weight broken: 1 of 4096 values are NaN or infinite"):
        palettize(source, tmp_path / "ours.mlpackage", nbits=4, workers=2)

    assert [p.name for p in tmp_path.iterdir()] == ["source.mlpackage"]


def test_an_existing_destination_is_left_alone(tmp_path):
    source = convolutions(tmp_path / "source.mlpackage", layers=1)
    (tmp_path / "ours.mlpackage").mkdir()

    with pytest.raises(MILError, match="exists already"):
        palettize(source, tmp_path / "ours.mlpackage", nbits=4)
