import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.frontend.milproto import load as milproto
from coremltools.converters.mil.mil import types

from sdbuild.base.digest import digest_file
from sdbuild.base.errors import InvalidProgram, MILError, UnsupportedFormat
from sdbuild.mil.compile.compile import compile_package
from sdbuild.mil.compress.palettize import palettize
from sdbuild.mil.edit.chunk import chunk
from sdbuild.mil.edit.functions import unite
from sdbuild.mil.execute.execute import Executor
from sdbuild.mil.files.package import WEIGHT_FILE, input_shapes, read_package
from sdbuild.mil.files.read import read_model
from tests.mil.packages import IOS17, IOS18, half, package, quiet

SIZES = {"size_8x8": (8, 8), "size_12x8": (8, 12), "size_8x12": (12, 8)}
"""Height and width, by the name of the function: the default one is not the first by name."""


def network(path, height, width, target=IOS18, pieces=1):
    """Convolutions, a transposed embedding that all of them take, and a skip; the means of the
    embedding are computed in so many pieces, as `split_einsum_v2` has more of them at larger
    sizes."""
    def body(sample, prompt):
        words = mb.transpose(x=prompt, perm=[0, 2, 1], name="words")

        def layer(x, seed):
            found = mb.linear(x=words, weight=half(16, 6, seed=20 + seed))
            each = [mb.slice_by_index(x=found, begin=[0, 0, 16 // pieces * i],
                                      end=[1, 5, 16 // pieces * (i + 1)]) for i in range(pieces)]
            means = [mb.reduce_mean(x=piece, axes=[1], keep_dims=True) for piece in each]
            scale = mb.reshape(x=mb.concat(values=means, axis=2), shape=[1, 16, 1, 1])
            x = mb.conv(x=x, weight=half(16, 16, 3, 3, seed=seed), pad_type="same")
            return mb.add(x=x, y=scale)

        x = first = layer(sample, 0)
        for seed in range(1, 5):
            x = mb.relu(x=layer(x, seed))
        flat = mb.reshape(x=mb.add(x=x, y=first), shape=[1, 16, height * width])
        return mb.reduce_max(x=flat, axes=[2], name="out")

    return package(path, body, ((1, 16, height, width), types.fp16), ((1, 6, 5), types.fp16),
                   target=target)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    return {name: network(folder / f"{name}.mlpackage", *size) for name, size in SIZES.items()}


@pytest.fixture(scope="module")
def united(sources, tmp_path_factory):
    path = tmp_path_factory.mktemp("united") / "all.mlpackage"
    unite(sources, path)
    return path


def example(name):
    rng = np.random.default_rng(5)
    return {"sample": rng.standard_normal((1, 16, *SIZES[name])).astype(np.float16),
            "prompt": rng.standard_normal((1, 6, 5)).astype(np.float16)}


def alone(sources, name):
    return Executor(read_package(sources[name])).predict(example(name))["out"]


def test_each_function_gives_what_its_own_package_gives_and_the_first_is_the_default(
    sources, united,
):
    model = read_package(united)

    for name in SIZES:
        found = Executor(model, function=name).predict(example(name))["out"]
        np.testing.assert_array_equal(found, alone(sources, name))
    np.testing.assert_array_equal(Executor(model).predict(example("size_8x8"))["out"],
                                  alone(sources, "size_8x8"))
    assert model.input_shapes["sample"] == (1, 16, 8, 8)


def test_functions_of_the_same_weights_share_the_file_of_one(sources, united):
    file = read_package(united).weight_path(WEIGHT_FILE)

    assert digest_file(file) == digest_file(
        read_package(sources["size_8x8"]).weight_path(WEIGHT_FILE))


def test_weights_that_one_program_alone_has_are_added(sources, tmp_path):
    def other(sample):
        return mb.conv(x=sample, weight=half(16, 16, 3, 3, seed=77), pad_type="same", name="out")
    path = package(tmp_path / "other.mlpackage", other, ((1, 16, 8, 8), types.fp16), target=IOS18)

    unite({"a": sources["size_8x8"], "b": path}, tmp_path / "both.mlpackage")

    model = read_package(tmp_path / "both.mlpackage")
    given = {"sample": example("size_8x8")["sample"]}
    np.testing.assert_array_equal(Executor(model, function="b").predict(given)["out"],
                                  Executor(read_package(path)).predict(given)["out"])
    np.testing.assert_array_equal(
        Executor(model, function="a").predict(example("size_8x8"))["out"],
        alone(sources, "size_8x8"))


def test_coremltools_reads_what_its_own_save_multifunction_writes(sources, united, tmp_path):
    described = ct.utils.MultiFunctionDescriptor()
    for name, path in sources.items():
        described.add_function(str(path), src_function_name="main", target_function_name=name)
    described.default_function_name = "size_8x8"
    with quiet():
        ct.utils.save_multifunction(described, str(tmp_path / "theirs.mlpackage"))

    theirs = ct.utils.load_spec(str(tmp_path / "theirs.mlpackage"))
    ours = ct.utils.load_spec(str(united))

    assert ours.specificationVersion == theirs.specificationVersion
    assert ours.description.defaultFunctionName == theirs.description.defaultFunctionName
    assert {f.name: f for f in ours.description.functions} == {
        f.name: f for f in theirs.description.functions}
    program = milproto.load(ours, ours.specificationVersion,
                            str(united / "Data/com.apple.CoreML/weights"))
    assert program.functions.keys() == SIZES.keys()
    listed = ct.utils.MultiFunctionDescriptor(str(united))
    assert listed._functions().keys() == SIZES.keys()


@pytest.mark.parametrize("count", [2, 3])
def test_palettized_cut_and_compiled_functions_share_files_and_stay_bit_for_bit(
    sources, united, tmp_path, count,
):
    def chunks(source, name):
        palettize(source, tmp_path / f"{name}.mlpackage", nbits=4)
        paths = [tmp_path / f"{name}{number}.mlpackage" for number in range(count)]
        chunk(tmp_path / f"{name}.mlpackage", paths)
        return paths

    many, one = chunks(united, "many"), chunks(sources["size_8x8"], "one")

    for path, single in zip(many, one, strict=True):
        assert digest_file(read_package(path).weight_path(WEIGHT_FILE)) == digest_file(
            read_package(single).weight_path(WEIGHT_FILE))
        compile_package(path, path.with_suffix(".mlmodelc"))
    for name in SIZES:
        values = example(name)
        for path in many:
            model = read_model(path.with_suffix(".mlmodelc"))
            needed = {port: values[port] for port in input_shapes(model.described(name))}
            values |= Executor(model, function=name).predict(needed)
        whole = Executor(read_package(tmp_path / "many.mlpackage"), function=name)
        np.testing.assert_array_equal(values["out"], whole.predict(example(name))["out"])


def test_functions_with_other_operations_are_cut_at_the_same_weights(sources, tmp_path):
    longer = network(tmp_path / "longer.mlpackage", 8, 12, pieces=4)
    unite({"size_8x8": sources["size_8x8"], "size_12x8": longer}, tmp_path / "both.mlpackage")
    paths = [tmp_path / f"{number}.mlpackage" for number in range(3)]

    report = chunk(tmp_path / "both.mlpackage", paths)

    models = [read_package(path) for path in paths]
    whole = read_package(tmp_path / "both.mlpackage")
    lengths = {len(function.block.operations) for function in whole.program.functions.values()}
    assert len(lengths) == 2
    weights = sum(record.size_bytes for record in whole.reader(WEIGHT_FILE).records())
    assert sum(each.blob_bytes for each in report.chunks) == weights  # none is in two chunks
    values = example("size_12x8")
    for model in models:
        given = {port: values[port] for port in input_shapes(model.described("size_12x8"))}
        values |= Executor(model, function="size_12x8").predict(given)
    expected = Executor(whole, function="size_12x8").predict(example("size_12x8"))
    np.testing.assert_array_equal(values["out"], expected["out"])


def test_what_is_only_another_form_of_an_input_does_not_cross_a_cut(sources, tmp_path):
    paths = [tmp_path / "1.mlpackage", tmp_path / "2.mlpackage"]

    report = chunk(sources["size_8x8"], paths)

    assert {c.value for c in report.crossings[0]}.isdisjoint({"words"})
    assert "prompt" in report.chunks[1].inputs
    types_of = [op.type for op in read_package(paths[1]).program.main.block.operations]
    assert "transpose" in types_of


def test_a_function_that_is_not_there_is_refused_with_those_that_are(united):
    with pytest.raises(InvalidProgram, match=r"no function 'main'; found: size_12x8, size_8x12"):
        Executor(read_package(united), function="main")


def test_packages_that_cannot_be_functions_are_refused(sources, united, tmp_path):
    old = network(tmp_path / "old.mlpackage", 8, 8, target=IOS17)
    one = {"a": sources["size_8x8"]}
    target = tmp_path / "made.mlpackage"

    with pytest.raises(MILError, match="1 packages, expected two or more"):
        unite(one, target)
    with pytest.raises(UnsupportedFormat, match="specification version 8, expected 9"):
        unite(one | {"b": old}, target)
    with pytest.raises(UnsupportedFormat, match="several functions or opsets, expected one"):
        unite(one | {"b": united}, target)
    with pytest.raises(MILError, match="exists already"):
        unite(sources, united)
    assert not target.exists()
