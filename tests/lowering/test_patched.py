"""Functions of coremltools are replaced only where they are the ones that we know."""

import contextlib
import hashlib
import inspect
import types

import pytest
from coremltools.converters.mil import Builder as mb

from sdbuild.base.errors import StepError
from sdbuild.lowering.patched import Patch, patched
from sdbuild.lowering.recording import patches, recording

KNOWN = {
    "_get_offset_by_writing_data":
        "5759e5ade997accd76afff6bfd17cdca8f485b8e5a5be4d92ce0ee1afe0943c7",
    "get_cast_value":
        "349994c9a45ae8e07a988a7a41a8fb3f0f3e8361a8575a535a4cc0993b9f76bb",
    "_check_underflow_to_zero":
        "ca65abdf8aafa58d9da02a9a094ae6ae65cc0d2dcebbe854d4522be518ecf773",
    "fp16_overflow":
        "16442a50be56e0f9b346ac9d2fd5a490444582913c674389670a26389629055f",
    "validate":
        "6272d10e561b2990179bae0fc13791aefac80e086f0188dc457e303559e44b40",
    "__str__":
        "293ac64d10966d2fad67d0a4fe1febad1c2909cb7bf77257cde0d77f94c5d74d",
    "_propagate_nonreplaceable_vars":
        "cb2a2fc0f0365468adf7c1e4a0bcb7e322363c48addf8622f307b38ce575a917",
    "get_type_info":
        "4bc82ca9b3da6f0190b5ac3bc8d90690ca57cb24a63fe91bfaeb03875b25ca42",
    "_get_type_val":
        "f2a316132c9bc655d72f7c5d36f346480b774d10cc3fc844c12aeaa8bd51d9fa",
    "_replace_var":
        "db3ff96afe24193ad8e4c8cdbe9507b33afc7dc956c75c9d82763d6fdad5da1c",
}
"""SHA-256 of the source of each replaced function, in the coremltools of constraints.txt."""


class Upstream:
    """A class as coremltools may have one in another version."""

    def known(self, program):
        return f"own {program}"

    @classmethod
    def made(cls, value):
        return cls, value


def patch(**changed):
    return Patch(**{"owner": Upstream, "name": "known", "parameters": ("self", "program"),
                    "replacement": lambda original: lambda self, program: "replaced"} | changed)


@pytest.mark.parametrize("found", patches([]), ids=lambda p: p.name)
def test_a_replaced_function_is_the_one_that_we_know(found):
    """Upstream changed it? Read what, adapt its replacement in `recording.py`, then the digest."""
    source = inspect.getsource(getattr(found.owner, found.name))

    assert hashlib.sha256(source.encode()).hexdigest() == KNOWN[found.name]


def test_a_function_is_replaced_for_a_while_and_put_back_after_an_error():
    before = dict(vars(Upstream))

    with pytest.raises(KeyError), patched([
        patch(), patch(name="made", parameters=("value",), replacement=lambda original:
                       staticmethod(lambda value: original(value + 1))),
    ]):
        assert Upstream().known("p") == "replaced"
        assert Upstream.made(1) == (Upstream, 2)
        raise KeyError

    assert dict(vars(Upstream)) == before


def test_nothing_of_coremltools_stays_replaced():
    before = [vars(p.owner)[p.name] for p in patches([])]

    with recording():
        assert [vars(p.owner)[p.name] for p in patches([])] != before

    assert [vars(p.owner)[p.name] for p in patches([])] == before


@pytest.mark.parametrize("anchor", ["first", "second", "last"])
def test_a_variable_is_replaced_after_an_operation_where_coremltools_would_replace_it(anchor):
    """Before `second` it is used, and after; after `last` it is not."""
    def takers(context):
        @mb.program(input_specs=[mb.TensorSpec(shape=(2, 3))])
        def program(x):
            old = mb.relu(x=x, name="old")
            mb.tanh(x=x, name="new")
            used = mb.add(x=old, y=x, name="first")
            used = mb.mul(x=used, y=old, name="second")
            used = mb.sub(x=used, y=old, name="third")
            return mb.exp(x=used, name="last")

        block = program.functions["main"]
        by_name = {op.name: op for op in block.operations}
        with context():
            count = block.replace_uses_of_var_after_op(
                anchor_op=by_name[anchor], old_var=by_name["old"].outputs[0],
                new_var=by_name["new"].outputs[0])
        return count, [sorted(child.name for child in by_name[name].outputs[0].child_ops)
                       for name in ("old", "new")]

    assert takers(recording) == takers(contextlib.nullcontext)


@pytest.mark.parametrize("wrong, message", [
    (patch(name="renamed"), r"coremltools 9\S* has no .*Upstream\.renamed"),
    (patch(parameters=("self",)), r"Upstream\.known takes \(self, program\), expected \(self\)"),
    (patch(owner=types.ModuleType("helper")), r"has no .*helper\.known"),
])
def test_a_function_that_is_not_as_known_is_an_error_and_nothing_is_replaced(wrong, message):
    with pytest.raises(StepError, match=message) as caught, patched([patch(), wrong]):
        pass

    assert "lower=direct" in caught.value.hint
    assert Upstream().known("p") == "own p"


@pytest.mark.parametrize("version", ["8.3.0", "10.0", "unknown"])
def test_another_major_version_of_coremltools_is_an_error(version, monkeypatch):
    monkeypatch.setattr("coremltools.__version__", version)

    with pytest.raises(StepError, match=f"found coremltools {version}, expected 9"), recording():
        pass
