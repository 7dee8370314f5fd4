"""Compiled or not, palettes are the same bytes: numpy's code is the reference."""

import importlib.util

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

from sdbuild.mil.compress import compiled, every_cut, kernels, kmeans, partition
from sdbuild.mil.compress.palettize import palettize
from sdbuild.mil.compress.partition import best_cuts
from sdbuild.mil.files.arrays import pack_bits
from tests.mil.compress.large import large_package
from tests.mil.packages import IOS18, package

RNG = np.random.default_rng(7)
EVERY = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
WEIGHTS = {
    "normal": RNG.standard_normal(60_000) * 0.02,
    "outliers": np.append(RNG.standard_normal(8_000) * 0.02, [300, -200, 5e4]),
    "heavy tails": np.clip(RNG.standard_cauchy(40_000), -6e4, 6e4),
    "every number": np.concatenate([EVERY[np.isfinite(EVERY)]] * 2),
    "symmetric": np.concatenate([a := RNG.standard_normal(30_000), -a]),
    "equal steps": np.repeat(np.arange(2048), 3),
    "rounded": np.round(RNG.standard_normal(60_000) * 500) / 1024,
}


RUNS = (16, False), (16, True), (64, False), (64, True), (256, True)
MOST_POINTS = {16: 60_000, 64: 5_000, 256: 4_200}
"""By the number of runs, and enough of them to move cuts from those of a coarser histogram."""


def with_kernels(monkeypatch, found):
    for module in (kmeans, partition):
        monkeypatch.setattr(module, "kernels", lambda elements: found)


def points(spread, is_weighted=False, most=1 << 16):
    """The values of a spread, of which each so many are left out, and how often they occur."""
    values, counts = np.unique(WEIGHTS[spread].astype(np.float16).astype(float),
                               return_counts=True)
    weights = counts * np.linspace(0.1, 1, len(counts)) if is_weighted else counts.astype(float)
    every = max(len(values) // most, 1)
    return np.ascontiguousarray(values[::every]), np.ascontiguousarray(weights[::every])


@pytest.mark.parametrize(("runs", "is_weighted"), RUNS)
@pytest.mark.parametrize("spread", WEIGHTS)
def test_cuts_by_errors_are_those_of_python(spread, runs, is_weighted):
    values, weights = points(spread, is_weighted, most=300)

    found = [each.cuts_by_errors(values, weights, runs) for each in (kernels, every_cut)]

    np.testing.assert_array_equal(found[1], found[0])


@pytest.mark.parametrize(("runs", "is_weighted"), RUNS)
@pytest.mark.parametrize("spread", WEIGHTS)
def test_the_cuts_are_those_of_numpy(spread, runs, is_weighted, monkeypatch):
    """numpy starts from cuts by errors, which Python would look for a minute: they are compiled
    here, as `test_cuts_by_errors_are_those_of_python` compares these."""
    values, weights = points(spread, is_weighted, MOST_POINTS[runs])

    monkeypatch.setattr(partition, "_cuts_by_errors", kernels.cuts_by_errors)
    found = []
    for each in (kernels, None):
        with_kernels(monkeypatch, each)
        found.append(best_cuts(values, weights, runs))

    np.testing.assert_array_equal(found[1], found[0])


@pytest.mark.parametrize("seed", range(6))
def test_of_two_mirrored_sets_of_cuts_both_take_the_same(monkeypatch, seed):
    half = (np.random.default_rng(seed).standard_normal(9_000) * 0.02).astype(np.float16)
    values, counts = np.unique(np.append(half, -half).astype(float), return_counts=True)

    found = []
    for each in (kernels, None):
        with_kernels(monkeypatch, each)
        found.append(best_cuts(values, counts.astype(float), 64))

    np.testing.assert_array_equal(found[1], found[0])


@pytest.mark.parametrize("runs", [16, 64, 256])
def test_wherever_the_search_starts_it_ends_at_the_same_cuts(runs):
    values, weights = points("normal")
    sums = partition._sums(values, weights)
    count = len(values)

    found = [
        kernels.best_cuts(sums.weights, sums.moments, np.array(start), 1) for start in (
            partition._likely_cuts(values, weights, runs, 1),
            [*range(runs), count],
            [0, *range(count - runs + 1, count + 1)],
        )
    ]

    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("stride", partition._STRIDES)
@pytest.mark.parametrize("spread", WEIGHTS)
def test_likely_cuts_are_in_order_and_at_multiples_of_the_stride(spread, stride):
    values, weights = points(spread)
    runs = len(values) // (4 * stride)

    cuts = partition._likely_cuts(values, weights, runs, stride)

    assert runs + 1 == len(cuts)
    assert (cuts[0], cuts[-1]) == (0, len(values))
    assert (np.diff(cuts) > 0).all()
    assert (cuts[:-1] % stride == 0).all()


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_indices_are_packed_as_numpy_packs_them(bits):
    index_of = RNG.integers(0, 1 << bits, 1 << 16).astype(np.uint8)
    for count in (1, 7, 8, 9, 1001):
        patterns = RNG.integers(0, 1 << 16, count).astype(np.uint16)
        patterns.flags.writeable = False
        packed = np.empty(-(-count * bits // 8), np.uint8)

        kernels.look_up_and_pack(patterns, index_of, bits, packed)

        assert pack_bits(index_of[patterns], bits) == packed.tobytes()


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("count", [1, 63, 64, 65, 1001])
def test_chosen_indices_are_packed_as_numpy_packs_them(monkeypatch, bits, count):
    chosen = RNG.integers(0, 1 << bits, (2, count)).astype(np.uint8)

    with_kernels(monkeypatch, kernels)

    assert pack_bits(chosen, bits) == kmeans.packed(chosen, bits)


def test_more_elements_than_a_count_has_room_for_are_counted_in_parts(monkeypatch):
    monkeypatch.setattr(kmeans, "_COUNTED", 1000)
    array = WEIGHTS["rounded"].astype(np.float16)

    with_kernels(monkeypatch, kernels)
    found = kmeans.histogram(array)

    values, counts = np.unique(array, return_counts=True)
    np.testing.assert_array_equal(values, found.values)
    np.testing.assert_array_equal(counts, found.counts)


@pytest.mark.parametrize("count", [0, 1, 5, 4000])
def test_patterns_are_counted_as_numpy_counts_them(count):
    patterns = RNG.integers(0, 9, count).astype(np.uint16) * 7000
    tables = np.zeros((2, 1 << 16), np.uint32)

    kernels.count_patterns(patterns, tables)

    np.testing.assert_array_equal(np.bincount(patterns, minlength=1 << 16), tables.sum(axis=0))


def uneven(*shape):
    return (RNG.standard_normal(shape) * np.geomspace(1, 1 / 64, shape[0]).reshape(-1, 1))


@pytest.mark.parametrize("options", [
    {}, {"group_size": 24}, {"is_scaled": True}, {"is_scaled": True, "group_size": 12},
], ids=["one table", "grouped", "weighted", "weighted groups"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_packages_are_the_same_bytes(tmp_path, monkeypatch, options, dtype):
    def body(x):
        return mb.linear(x=x, weight=uneven(48, 240).astype(dtype), name="out")

    kind = types.fp16 if dtype == np.float16 else types.fp32
    source = package(tmp_path / "source.mlpackage", body, ((1, 240), kind), target=IOS18)

    assert_same_bytes(tmp_path, monkeypatch, source, nbits=6, **options)


@pytest.mark.parametrize("spread", WEIGHTS)
def test_a_tensor_of_any_spread_becomes_the_same_bytes(tmp_path, monkeypatch, spread):
    array = WEIGHTS[spread].astype(np.float16)
    array = array[:len(array) // 3 * 3].reshape(3, -1)
    source = large_package(tmp_path / "source.mlpackage", [array])

    assert_same_bytes(tmp_path, monkeypatch, source, nbits=4)


def assert_same_bytes(tmp_path, monkeypatch, source, **options):
    reports = []
    for name, each in (("compiled", kernels), ("numpy", None)):
        with_kernels(monkeypatch, each)
        reports.append(palettize(source, tmp_path / name, **options))
    files = {name: sorted(p for p in (tmp_path / name).rglob("*") if p.is_file())
             for name in ("compiled", "numpy")}
    assert reports[0] == reports[1] != ()
    assert len(files["compiled"]) == 3 == len(files["numpy"])
    for one, other in zip(*files.values(), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_numbers_at_odd_addresses_are_counted_and_packed(monkeypatch):
    """As in a file whose blobs are not aligned."""
    data = b"\0" + WEIGHTS["normal"].astype(np.float16).tobytes()
    odd = np.frombuffer(data, np.float16, offset=1)
    table = kmeans.palette(kmeans.histogram(odd), 6, odd.dtype)

    with_kernels(monkeypatch, kernels)

    assert table.tobytes() == kmeans.palette(kmeans.histogram(odd), 6, odd.dtype).tobytes()
    assert pack_bits(kmeans.indices(table, odd), 6) == kmeans.packed_indices(table, odd, 6)


def test_without_numba_nothing_is_compiled(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    assert compiled.kernels(1 << 30) is None


def test_small_tensors_do_not_import_numba(monkeypatch):
    monkeypatch.delitem(compiled.sys.modules, compiled._KERNELS)

    assert compiled.kernels(1000) is None
    assert kernels is compiled.kernels(1 << 30)


@pytest.mark.parametrize("damage", ["cut", "not a folder"])
def test_a_cache_that_cannot_be_used_is_done_without(tmp_path, monkeypatch, damage):
    place = tmp_path / "cache"
    monkeypatch.setattr(kernels.numba.config, "CACHE_DIR", str(place))

    def twice(number):
        return 2 * number

    if damage == "cut":
        assert 6 == kernels._compiled(kernels.numba.int64)(twice)(3)
        kept = [path for path in place.rglob("*") if path.is_file()]
        assert kept
        for path in kept:
            path.write_bytes(path.read_bytes()[:5])
    else:
        place.write_text("a file")

    assert 6 == kernels._compiled(kernels.numba.int64)(twice)(3)
