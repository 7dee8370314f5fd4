"""`sdbuild mil observe`, and what `quantize` makes of the ranges that it writes."""

import numpy as np
import pytest

from sdbuild.mil.files.package import read_package
from tests.mil.packages import IOS17, convolutions


@pytest.fixture
def package(tmp_path):
    return convolutions(tmp_path / "source.mlpackage", IOS17, layers=2)


def given(folder, count=3):
    """A file of `count` samples, as `--samples` takes it."""
    samples = np.random.default_rng(0).standard_normal((count, 1, 36, 8, 8)).astype(np.float32)
    np.save(folder / "x.npy", samples)
    return samples, f"x={folder / 'x.npy'}"


def pairs(path):
    operations = read_package(path).program.main.block.operations
    return [op.type for op in operations].count("quantize")


def test_ranges_are_written_and_shown_and_layers_are_quantized_by_them(
    package, tmp_path, mil, mil_json
):
    samples, words = given(tmp_path)
    ranges, ours = tmp_path / "ranges.json", tmp_path / "ours.mlpackage"

    first, _ = mil_json("observe", package, ranges, "--samples", words)["layers"]
    status, _ = mil("quantize", package, ours, "--bits", 8, "--activations", ranges)

    assert (first["layer"], first["value"], first["work"]) == ("conv0", "x", 36 * 36 * 9 * 64)
    assert first["largest"] == np.abs(samples.astype(np.float16)).max()
    assert status == 0
    assert pairs(ours) == 2


def test_no_layer_is_quantized_where_none_loses_so_little(package, tmp_path, mil):
    _, words = given(tmp_path)
    ranges, ours = tmp_path / "ranges.json", tmp_path / "ours.mlpackage"
    mil("observe", package, ranges, "--samples", words)

    mil("quantize", package, ours, "--bits", 8, "--activations", ranges, "--min-snr", 120)

    assert pairs(ours) == 0


def test_what_cannot_be_observed_is_refused(package, tmp_path, mil):
    _, words = given(tmp_path)
    (tmp_path / "there.json").write_text("{}", "utf-8")

    for said, *arguments in (
        ("no samples to observe", "observe", package, tmp_path / "r.json"),
        ("there.json", "observe", package, tmp_path / "there.json", "--samples", words),
        ("schema is missing", "quantize", package, tmp_path / "q.mlpackage", "--bits", 8,
         "--activations", tmp_path / "there.json"),
    ):
        status, printed = mil(*arguments)
        assert status == 1
        assert said in printed
    with pytest.raises(SystemExit):
        mil("quantize", package, tmp_path / "q.mlpackage", "--bits", 8, "--min-snr", 30)
    assert not (tmp_path / "q.mlpackage").exists()
