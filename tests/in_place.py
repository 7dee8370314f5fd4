"""Compares a checkpoint that is read in place with the file that a download writes of it."""

import hashlib
from dataclasses import replace
from tempfile import TemporaryDirectory

import xxhash

from sdbuild.checkpoints.normalized import WEIGHTS
from sdbuild.engine.stage import VIRTUAL, stage
from sdbuild.safetensors.tensors import table
from sdbuild.steps.download import checkpoint_tensors


def assert_same_in_place(job, facts):
    """A download that leaves its weights virtual says of them what those that `job` wrote are, and
    a step reads the same tensors."""
    stored = job.output / WEIGHTS
    if not stored.exists():
        return
    with TemporaryDirectory() as other:
        virtual = replace(job, output=type(stored)(other), resources={"virtual_from_bytes": 0})
        found = stage("download").run(virtual)
        assert not (virtual.output / WEIGHTS).exists()
    content = stored.read_bytes()
    assert found.pop(VIRTUAL) == {WEIGHTS: (xxhash.xxh3_128_hexdigest(content), len(content))}
    assert found == facts
    reader = replace(job, virtual={"checkpoint": virtual})
    assert said(checkpoint_tensors(reader, "checkpoint")) == said(table([stored]))


def said(tensors):
    """Returns the names of tensors in order, and type, shape and digest of each."""
    return [(name, t.dtype, t.shape, hashlib.sha256(b"".join(t.chunks())).hexdigest())
            for name, t in tensors.items()]
