"""The descriptors of Core ML's messages, compared with those of the installed coremltools."""

import importlib
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from sdbuild.mil.ir.proto import DESCRIPTORS, messages

OWN = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())


@pytest.mark.parametrize("file", OWN.file, ids=lambda file: file.name)
def test_each_file_is_that_of_coremltools(file):
    coremltools = pytest.importorskip("coremltools")
    assert coremltools.__version__.startswith("9."), "update messages.binpb"
    module = importlib.import_module(f"coremltools.proto.{Path(file.name).stem}_pb2")

    assert descriptor_pb2.FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb) == file


def test_a_message_is_read_as_coremltools_writes_it():
    theirs = pytest.importorskip("coremltools.proto.Model_pb2").Model(specificationVersion=8)
    theirs.mlProgram.functions["main"].opset = "CoreML8"

    ours = messages("Model").Model.FromString(theirs.SerializeToString())

    assert ours.mlProgram.functions["main"].opset == "CoreML8"
    assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(
        deterministic=True)
