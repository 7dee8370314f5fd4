"""Palettes that were chosen weight by weight, in packages that coremltools reads."""

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

from sdbuild.base.errors import MILError
from sdbuild.mil.compress import feedback
from sdbuild.mil.compress.assigned import Choice, palettize_as, widths
from sdbuild.mil.compress.palettize import palettize
from tests.mil.packages import IOS16, IOS18, convolutions, dense, half, package, weights


def files(path):
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(path.rglob("*"))
            if p.is_file() and p.name != "Manifest.json"}


@pytest.mark.parametrize("target", [IOS16, IOS18], ids=["iOS16", "iOS18"])
def test_equal_bits_and_own_tables_are_the_plain_palettes_byte_for_byte(tmp_path, target):
    source = convolutions(tmp_path / "source.mlpackage", target, layers=2)
    plain, chosen = tmp_path / "plain.mlpackage", tmp_path / "chosen.mlpackage"

    wanted = palettize(source, plain, nbits=4)
    found = palettize_as(source, chosen, lambda task: Choice(bits=4), workers=2)

    assert files(chosen) == files(plain)
    assert [report.name for report in found] == [report.name for report in wanted]


def test_each_weight_has_the_table_and_the_bits_that_were_chosen(tmp_path):
    source = convolutions(tmp_path / "source.mlpackage", IOS16, layers=3)
    bits = {"conv0_weight_0": 1, "conv1_weight_0": 6, "conv2_weight_0": 2}
    bits = dict(zip(sorted(n for n in weights(source) if "weight" in n), bits.values(),
                    strict=True))
    tables = {name: np.linspace(-0.1, 0.1, 1 << count).astype(np.float16)
              for name, count in bits.items()}

    reports = palettize_as(source, tmp_path / "made.mlpackage",
                           lambda task: Choice(bits=bits[task.name], table=tables[task.name]))

    made = dense(tmp_path / "made.mlpackage", tmp_path)
    assert {report.name: report.bits for report in reports} == bits
    for name, table in tables.items():
        assert set(np.unique(made[name])) <= set(table)


def test_feedback_of_a_weight_whose_rows_lie_the_other_way_is_that_of_the_turned_one(tmp_path):
    weight = half(72, 40)
    source = package(tmp_path / "source.mlpackage",
                     lambda x: mb.matmul(x=x, y=weight, name="out"), ((5, 72), types.fp16))
    table = np.linspace(-0.1, 0.1, 8).astype(np.float16)[::2]
    order = np.arange(72, dtype=np.int32)[None, ::-1].copy()
    factors = np.triu(half(72, 72, seed=1), 1)[None]

    palettize_as(source, tmp_path / "made.mlpackage", lambda task: Choice(
        bits=2, table=table, order=order, factors=factors, is_transposed=True))

    wanted = table[feedback.indices(np.ascontiguousarray(weight.T), table, order, factors)].T
    (found,) = [w for w in dense(tmp_path / "made.mlpackage", tmp_path).values()
                if w.shape == weight.shape]
    np.testing.assert_array_equal(found, wanted)


def test_a_table_of_another_width_is_refused(tmp_path):
    source = convolutions(tmp_path / "source.mlpackage", IOS16, layers=1)

    with pytest.raises(MILError, match="a table of 3 entries, expected 4"):
        palettize_as(source, tmp_path / "made.mlpackage",
                     lambda task: Choice(bits=2, table=np.zeros(3, np.float16)))


def test_three_bits_are_refused_before_ios_18(tmp_path):
    source = convolutions(tmp_path / "source.mlpackage", IOS16, layers=1)

    with pytest.raises(MILError, match="palettes of 3 bits, expected one of 1, 2, 4, 6, 8"):
        palettize_as(source, tmp_path / "made.mlpackage", lambda task: Choice(bits=3))

    assert 3 in widths(8)
    assert 3 not in widths(7)
