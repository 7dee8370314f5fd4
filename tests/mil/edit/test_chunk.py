from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.optimize import coreml as cto

from sdbuild.base.errors import MILError, UnsupportedFormat
from sdbuild.mil.compress.palettize import palettize
from sdbuild.mil.edit.chunk import chunk
from sdbuild.mil.edit.cuts import TOLERANCE
from sdbuild.mil.execute.execute import Executor
from sdbuild.mil.files.package import read_package, write_package
from sdbuild.mil.ir.traverse import blobs, walk
from tests.mil.packages import IOS15, IOS16, IOS18, changed, convolutions, half, package

FP32, INT32 = 65568, 131104  # ArrayFeatureType.ArrayDataType


def network(path, target=IOS16):
    """Skips, an early output, an int32 value and an input that are used late, a shared weight."""
    shared = half(16, 16, 1, 1, seed=9)

    def conv(x, seed, name):
        return mb.conv(x=x, weight=half(16, 16, 3, 3, seed=seed), pad_type="same", name=name)

    def body(sample, late):
        ids = mb.reduce_argmax(x=sample, axis=1, keep_dims=True, name="ids")
        first = conv(sample, 0, "first")
        early = mb.relu(x=first, name="early")
        second = mb.conv(x=conv(early, 1, "second"), weight=shared, name="mixed")
        third = mb.add(x=conv(second, 2, "third"), y=first, name="skip")
        fourth = mb.conv(x=conv(third, 3, "fourth"), weight=shared, name="mixed2")
        late = mb.add(x=late, y=mb.cast(x=ids, dtype="fp32"), name="sum")
        total = mb.add(x=mb.cast(x=conv(fourth, 4, "fifth"), dtype="fp32"), y=late, name="total")
        return total, early

    return package(path, body, ((1, 16, 8, 8), types.fp16), ((1, 1, 8, 8), types.fp32),
                   target=target)


def named(tmp_path, count):
    return [tmp_path / f"chunk{number}.mlpackage" for number in range(count)]


def in_a_row(paths, inputs):
    """Returns the output of chunks run as a host does: each gets the whole's inputs and the outputs
    of the one before."""
    found = {}
    for path in paths:
        model = read_package(path)
        given = {**inputs, **found}
        found = Executor(model).predict({name: given[name] for name in model.inputs})
    return found


def example():
    random = np.random.default_rng(5)
    return {"sample": random.standard_normal((1, 16, 8, 8)).astype(np.float16),
            "late": random.standard_normal((1, 1, 8, 8)).astype(np.float32)}


@pytest.mark.parametrize("target,count", [
    (IOS15, 2), (IOS16, 3), (IOS16, 5), (IOS18, 2), (IOS18, 3),
])
def test_the_chunks_in_a_row_equal_the_whole_bit_for_bit(tmp_path, target, count):
    source = network(tmp_path / "source.mlpackage", target)
    paths = named(tmp_path, count)

    chunk(source, paths)

    expected = Executor(read_package(source)).predict(example())
    found = in_a_row(paths, example())
    assert list(found) == ["total", "early"]
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("target,nbits", [(IOS16, 4), (IOS18, 3)])
def test_palettized_chunks_keep_their_tables_and_balance_what_ships(tmp_path, target, nbits):
    source = network(tmp_path / "source.mlpackage", target)
    palettize(source, tmp_path / "small.mlpackage", nbits=nbits, skip=["first_*"])
    paths = named(tmp_path, 2)

    report = chunk(tmp_path / "small.mlpackage", paths)

    expected = Executor(read_package(tmp_path / "small.mlpackage")).predict(example())
    for name, value in in_a_row(paths, example()).items():
        np.testing.assert_array_equal(value, expected[name])
    assert report.chunks[0].blob_bytes == 16 * 16 * 9 * 2  # the weight that stayed fp16
    assert report.chunks[1].blob_bytes < 4 * 16 * 16 * 9


def test_both_sides_of_a_cut_name_and_type_its_features_alike(tmp_path):
    source = network(tmp_path / "source.mlpackage")
    paths = named(tmp_path, 3)

    report = chunk(source, paths)

    whole, models = read_package(source), [read_package(path) for path in paths]
    assert list(models[0].inputs) == list(whole.inputs)
    assert list(models[-1].outputs) == list(whole.outputs)
    for (left, right), crossing in zip(pairwise(models), report.crossings, strict=True):
        assert list(left.outputs) == [c.feature for c in crossing]
        for name, feature in left.outputs.items():
            assert right.inputs[name] == feature
            assert name not in whole.inputs
            kind = feature.type.multiArrayType.dataType
            assert kind == (INT32 if name.startswith("ids") else FP32)
    assert any(c.type.dtype == "int32" for crossing in report.crossings for c in crossing)
    for model in models:
        functions = model.program.main
        assert [i.name for i in functions.inputs] == list(model.inputs)
        assert functions.block.outputs == tuple(model.outputs)


@pytest.mark.parametrize("target,opset", [(IOS15, "CoreML5"), (IOS16, "CoreML6"),
                                          (IOS18, "CoreML8")])
def test_chunks_keep_opset_version_metadata_and_descriptions(tmp_path, target, opset):
    source = network(tmp_path / "source.mlpackage", target)
    described = tmp_path / "described.mlpackage"

    def describe(model):
        model.author, model.license, model.version = "me", "MIT", "3"
        model.short_description = "a network"
        model.input_description["sample"] = "noise"
        model.output_description["total"] = "the sum"
        return model

    changed(source, described, describe)
    paths = named(tmp_path, 2)

    chunk(described, paths)

    whole = read_package(described)
    for path in paths:
        model = read_package(path)
        assert model.program.main.opset == opset
        assert model.specification_version == whole.specification_version
        assert model.description.metadata == whole.description.metadata
    assert read_package(paths[0]).inputs["sample"] == whole.inputs["sample"]
    assert read_package(paths[1]).outputs["total"] == whole.outputs["total"]


def test_coremltools_reads_and_rewrites_each_chunk(tmp_path):
    source = network(tmp_path / "source.mlpackage")
    paths = named(tmp_path, 2)

    chunk(source, paths)

    config = cto.OptimizationConfig(cto.OpPalettizerConfig(mode="uniform", nbits=8))
    rewritten = [changed(path, tmp_path / f"again_{path.name}",
                         lambda model: cto.palettize_weights(model, config)) for path in paths]
    for path, again in zip(paths, rewritten, strict=True):
        assert list(read_package(again).outputs) == list(read_package(path).outputs)
        assert list(read_package(again).inputs) == list(read_package(path).inputs)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_chunks_of_equal_layers_weigh_the_same_within_the_tolerance(tmp_path, count):
    source = convolutions(tmp_path / "source.mlpackage", layers=12)

    report = chunk(source, named(tmp_path, count))

    sizes = [c.blob_bytes for c in report.chunks]
    assert sum(sizes) == 12 * (36 * 36 * 9 + 36) * 2
    assert max(abs(size * count / sum(sizes) - 1) for size in sizes) <= TOLERANCE


def test_the_cut_near_the_middle_that_crosses_least_is_taken(tmp_path):
    def body(x):
        for layer in range(11):
            x = mb.conv(x=x, weight=half(32, 32, 3, 3, seed=layer), pad_type="same")
            if layer == 5:  # past the middle, but only a quarter of the values cross
                x = mb.avg_pool(x=x, kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid",
                                name="small")
                x = mb.upsample_nearest_neighbor(x=x, scale_factor_height=2, scale_factor_width=2)
        return mb.relu(x=x, name="out")

    source = package(tmp_path / "source.mlpackage", body, ((1, 32, 8, 8), types.fp16))

    report = chunk(source, named(tmp_path, 2))

    assert [c.value for c in report.crossings[0]] == ["small"]


def test_values_that_cannot_be_features_are_not_cut_through(tmp_path):
    def body(x):
        is_big = mb.greater(x=x, y=np.float16(0.5), name="is_big")
        y = mb.matmul(x=mb.relu(x=x), y=half(64, 64))
        y = mb.matmul(x=y, y=half(64, 64, seed=1))
        y = mb.select(cond=is_big, a=y, b=x, name="y")
        return mb.matmul(x=y, y=half(64, 8, seed=2), name="out")

    source = package(tmp_path / "source.mlpackage", body, ((1, 64), types.fp16))

    report = chunk(source, named(tmp_path, 2))

    assert [c.value for c in report.crossings[0]] == ["y"]
    with pytest.raises(MILError, match="1 places to cut, expected 2 or more"):
        chunk(source, [tmp_path / f"other{n}.mlpackage" for n in range(3)])


def test_one_huge_constant_is_cut_beside_not_through(tmp_path):
    def body(x):
        y = mb.matmul(x=x, y=half(64, 512, seed=1), name="huge")
        return mb.matmul(x=mb.relu(x=y), y=half(512, 4, seed=2), name="out")

    source = package(tmp_path / "source.mlpackage", body, ((1, 64), types.fp16))

    report = chunk(source, named(tmp_path, 2))

    assert [c.blob_bytes for c in report.chunks] == [64 * 512 * 2, 512 * 4 * 2]


def test_each_chunk_holds_only_the_blobs_that_it_uses(tmp_path):
    source = network(tmp_path / "source.mlpackage")
    paths = named(tmp_path, 2)

    report = chunk(source, paths)

    for path, expected in zip(paths, report.chunks, strict=True):
        model = read_package(path)
        used = {b for op in walk(model.program.main.block) for b in blobs(op)}
        records = list(model.reader("@model_path/weights/weight.bin").records())
        assert {b.offset for b in used} == {r.offset for r in records}
        assert sum(r.size_bytes for r in records) == expected.blob_bytes


def test_the_same_source_gives_the_same_bytes(tmp_path):
    source = network(tmp_path / "source.mlpackage")
    first, second = tmp_path / "first", tmp_path / "second"

    chunk(source, named(first, 2))
    chunk(source, named(second, 2))

    files = [p.relative_to(first) for p in sorted(first.rglob("*")) if p.is_file()]
    assert len(files) == 6
    assert all((first / f).read_bytes() == (second / f).read_bytes() for f in files)


def test_names_that_look_like_ours_do_not_collide(tmp_path):
    source = network(tmp_path / "source.mlpackage")
    once, again = named(tmp_path, 2), [tmp_path / "a.mlpackage", tmp_path / "b.mlpackage"]
    chunk(source, once)

    chunk(once[0], again)

    expected = Executor(read_package(source)).predict(example())
    middle = in_a_row(again, example())
    given = {**example(), **middle}
    last = read_package(once[1])
    found = Executor(last).predict({name: given[name] for name in last.inputs})
    np.testing.assert_array_equal(found["total"], expected["total"])


def test_what_cannot_be_chunked_is_refused_before_anything_is_written(tmp_path):
    source = convolutions(tmp_path / "source.mlpackage", layers=1)
    (tmp_path / "taken").mkdir()

    with pytest.raises(MILError, match="1 chunks, expected two or more"):
        chunk(source, named(tmp_path, 1))
    with pytest.raises(MILError, match="1 places to cut, expected 3 or more"):
        chunk(source, named(tmp_path, 4))
    with pytest.raises(MILError, match="taken: exists already"):
        chunk(source, [tmp_path / "free", tmp_path / "taken"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source.mlpackage", "taken"]


def test_flexible_shapes_are_refused(tmp_path):
    fixed = read_package(convolutions(tmp_path / "fixed.mlpackage", layers=2))
    main = fixed.program.main
    unknown = replace(main.inputs[0], type=replace(main.inputs[0].type, shape=(None, 36, 8, 8)))
    program = replace(fixed.program, functions={"main": replace(main, inputs=(unknown,))})
    weights = tmp_path / "weight.bin"
    weights.write_bytes((fixed.root / "weights" / "weight.bin").read_bytes())
    write_package(tmp_path / "flexible.mlpackage", specification_version=7,
                  description=fixed.description, program=program, weights=weights)

    with pytest.raises(UnsupportedFormat, match=r"is fp\d+ \[.*\], expected a tensor of known"):
        chunk(tmp_path / "flexible.mlpackage", named(tmp_path, 2))
