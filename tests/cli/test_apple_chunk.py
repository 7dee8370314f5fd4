"""Apple's `chunk_mlprogram`: cut once, and compared with the package."""

import shutil

import numpy as np
import pytest

from sdbuild.cli.apple.cut import psnr_db
from sdbuild.cli.main import main
from tests.mil.packages import convolutions


@pytest.mark.parametrize("merge", [[], ["--merge-chunks-in-pipeline-model"]])
def test_a_package_that_was_cut_is_cut_again_only_if_it_is_another(merge, tmp_path, capsys):
    source, out = convolutions(tmp_path / "net.mlpackage"), tmp_path / "cut"
    words = ["chunk", "--mlpackage-path", str(source), "-o", str(out), *merge]
    assert main(words) == 0
    assert "up to date" not in capsys.readouterr().out
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    assert main(words) == 0
    assert all(line.endswith("up to date") for line in capsys.readouterr().out.splitlines())
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before

    shutil.rmtree(source)
    convolutions(source, layers=6)
    assert main(words) == 0
    assert "up to date" not in capsys.readouterr().out
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} != before

    assert main([*words, "--remove-original"]) == 0
    assert main(words) == 1
    assert f"hint: its chunks are in {out} already" in capsys.readouterr().err


def test_a_chunk_that_others_made_is_left_alone(tmp_path, capsys):
    source, out = convolutions(tmp_path / "net.mlpackage"), tmp_path / "cut"
    convolutions(out / "net_chunk2.mlpackage")

    assert main(["chunk", "--mlpackage-path", str(source), "-o", str(out)]) == 1

    assert f"{out / 'net_chunk2.mlpackage'}: sdbuild did not make it" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["net_chunk2.mlpackage"]


@pytest.mark.parametrize(("found", "decibels"), [
    ([3.0, 4.0, np.nan], np.inf), ([3.0, 4.1, np.nan], -np.inf), ([3.0, 4.0, 1.0], -np.inf),
    ([np.inf, 4.0, np.nan], -np.inf),
])
def test_chunks_that_differ_in_what_is_not_finite_are_not_the_same(found, decibels):
    assert psnr_db(np.array([3.0, 4.0, np.nan]), np.array(found)) == decibels


def test_the_error_of_chunks_is_in_units_of_the_largest_value():
    """An error of 0.4 in each, of 4 at most: 20 dB."""
    assert psnr_db(np.array([4.0, -2.0]), np.array([4.4, -1.6])) == pytest.approx(20)
