"""Pipelines of ML Programs, against those that coremltools makes."""

import coremltools as ct
import numpy as np
import pytest

from sdbuild.base.errors import InvalidProgram, MILError, UnsupportedFormat
from sdbuild.mil.edit.chunk import chunk
from sdbuild.mil.edit.pipeline import (
    chunk_into_pipeline,
    is_pipeline,
    join,
    read_pipeline,
    write_pipeline,
)
from sdbuild.mil.execute.execute import Executor
from sdbuild.mil.files.package import model_file, read_package
from sdbuild.mil.ir.proto import serialize
from tests.mil.packages import convolutions, quiet, spec_of

UNKNOWN = b"\x82\xfa\x01\x05novel"  # field 4000, five bytes


def without_metadata(spec):
    spec.description.ClearField("metadata")
    return serialize(spec)


def weight_files(path):
    return {file.name: file.read_bytes() for file in path.glob("Data/*/weights/*")}


def in_a_row(models, values):
    for model in models:
        needed = {name: values[name] for name in model.inputs}
        values = values | Executor(model).predict(needed)
    return values


@pytest.fixture
def chunks(tmp_path):
    paths = [tmp_path / "1.mlpackage", tmp_path / "2.mlpackage"]
    chunk(convolutions(tmp_path / "whole.mlpackage"), paths)
    return paths


@pytest.fixture
def theirs(chunks, tmp_path):
    with quiet():
        models = [ct.models.MLModel(str(path), skip_model_load=True) for path in chunks]
        ct.utils.make_pipeline(*models).save(str(tmp_path / "theirs.mlpackage"))
    return tmp_path / "theirs.mlpackage"


def test_a_pipeline_equals_that_of_coremltools_but_for_the_metadata_it_leaves_out(
    chunks, theirs, tmp_path
):
    join(chunks, tmp_path / "ours.mlpackage")

    ours = spec_of(tmp_path / "ours.mlpackage")
    assert spec_of(chunks[0]).description.metadata == ours.description.metadata
    assert without_metadata(spec_of(theirs)) == without_metadata(ours)
    assert weight_files(theirs) == weight_files(tmp_path / "ours.mlpackage")


def test_what_bisect_model_writes_is_read(tmp_path):
    whole = convolutions(tmp_path / "whole.mlpackage", layers=6)
    with quiet():
        ct.models.utils.bisect_model(str(whole), str(tmp_path), merge_chunks_to_pipeline=True,
                                     check_output_correctness=False)
    x = np.random.default_rng(0).standard_normal((1, 36, 8, 8)).astype(np.float32)

    pipeline = read_pipeline(tmp_path / "whole_chunked_pipeline.mlpackage")

    expected = Executor(read_package(whole)).predict({"x": x})
    assert expected["out"].tobytes() == in_a_row(pipeline.models, {"x": x})["out"].tobytes()


def test_the_chunks_of_one_package_in_a_row_equal_the_whole(tmp_path):
    whole = convolutions(tmp_path / "whole.mlpackage")
    x = np.random.default_rng(0).standard_normal((1, 36, 8, 8)).astype(np.float32)

    report = chunk_into_pipeline(whole, tmp_path / "one.mlpackage", 3)

    pipeline = read_pipeline(tmp_path / "one.mlpackage")
    expected = Executor(read_package(whole)).predict({"x": x})
    assert len(report.chunks) == len(pipeline.models) == 3
    assert expected["out"].tobytes() == in_a_row(pipeline.models, {"x": x})["out"].tobytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.mlpackage", "whole.mlpackage"]


def test_a_pipeline_is_written_as_it_was_read_unknown_fields_included(theirs, tmp_path):
    file, spec = model_file(theirs), spec_of(theirs)
    for place in (spec, spec.pipeline, spec.pipeline.models[1], spec.description,
                  spec.pipeline.models[0].mlProgram):
        place.MergeFromString(UNKNOWN)
    spec.pipeline.names.extend(["first", "second"])
    file.write_bytes(serialize(spec))

    write_pipeline(read_pipeline(theirs), tmp_path / "again.mlpackage")

    assert serialize(spec) == model_file(tmp_path / "again.mlpackage").read_bytes()
    assert weight_files(theirs) == weight_files(tmp_path / "again.mlpackage")


def test_a_pipeline_is_no_model_and_a_model_no_pipeline(chunks, theirs):
    assert [is_pipeline(path) for path in (*chunks, theirs)] == [False, False, True]
    with pytest.raises(UnsupportedFormat, match="model type pipeline, expected mlProgram"):
        read_package(theirs)
    with pytest.raises(UnsupportedFormat, match="model type mlProgram, expected pipeline"):
        read_pipeline(chunks[0])


def test_pipelines_of_other_models_or_with_too_few_names_are_refused(theirs):
    file, spec = model_file(theirs), spec_of(theirs)
    spec.pipeline.names.append("first")
    file.write_bytes(serialize(spec))
    with pytest.raises(InvalidProgram, match="1 names for 2 models"):
        read_pipeline(theirs)

    del spec.pipeline.names[:]
    spec.pipeline.models[1].neuralNetwork.SetInParent()
    file.write_bytes(serialize(spec))
    with pytest.raises(UnsupportedFormat, match="model type neuralNetwork"):
        read_pipeline(theirs)


def test_nothing_is_overwritten_and_one_package_is_no_row(chunks, tmp_path):
    with pytest.raises(MILError, match="exists already"):
        join(chunks, chunks[0])
    with pytest.raises(MILError, match="a pipeline of 1, expected two or more"):
        join(chunks[:1], tmp_path / "one.mlpackage")
