"""Stand-ins: no constant of a program is taken for one, whatever numbers were drawn."""

import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sdbuild.base.errors import StepError
from sdbuild.families import Component, Port
from sdbuild.lowering import bind
from sdbuild.lowering.lowered import write_lowered
from sdbuild.lowering.standins import GRID, StandIns
from sdbuild.mil.files.package import write_package
from sdbuild.mil.ir.decode import decode_program
from sdbuild.models.group_norm import replace_group_norms
from sdbuild.safetensors.tensors import table

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sdbuild.lowering import coreml, once
    from sdbuild.lowering.place import identified
    from sdbuild.lowering.recording import Written, recording

pytestmark = pytest.mark.filterwarnings("ignore")
COMPONENT = Component(
    name="small", bundle_name="Small", folder="small",
    inputs=(Port(name="x", shape=(), dtype="fp16", meaning=""),),
    outputs=(Port(name="y", shape=(), dtype="fp32", meaning=""),),
)
ON_GRID = 1.0009765625
"""The number of fp16 after 1."""


class Network(nn.Module):
    """Group norms, beside which coremltools writes ones; parameters in blobs, in place, in fp32."""

    def __init__(self):
        super().__init__()
        self.norm = nn.GroupNorm(2, 16)
        self.conv = nn.Conv2d(16, 16, 3, padding=1)
        self.norm_out = nn.GroupNorm(4, 16)
        self.linear = nn.Linear(16, 16)
        self.out = nn.Conv2d(16, 3, 1)

    def forward(self, x):
        frequencies = torch.exp(torch.arange(16, device=x.device) / -3)
        steps = self.linear(torch.sin(x.mean((2, 3)) * frequencies))
        x = self.conv(self.norm(x)) + steps[:, :, None, None]
        return self.out(self.norm_out(x))


class Using(nn.Module):
    """A network of one matrix, as `use` uses it."""

    def __init__(self, use, rows=16):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, 16))
        self.use = use

    def forward(self, x):
        return self.use(x, self.weight)


def graph(network):
    replace_group_norms(network)
    inputs = (torch.zeros(1, 16, 16, 16, device="meta"),)
    return torch.export.export(network.to("meta").eval(), inputs).run_decompositions({})


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def lowered(program, folder, **options):
    folder.mkdir()
    found = once.lower(program, COMPONENT, "iOS16", folder, **options)
    write_lowered(folder, found)
    return found


def numbers(program):
    rng = torch.Generator().manual_seed(5)
    return {n: torch.randn(t.shape, generator=rng) for n, t in program.state_dict.items()}


def bound(found, tensors, folder):
    save_file(tensors, folder / "w.safetensors")
    package = folder / "Small.mlpackage"
    bind.bind(found, table([folder / "w.safetensors"]), package, found.spec.description)
    return {p.name: p.read_bytes() for p in package.rglob("*") if p.is_file()}


def direct(program, tensors, folder):
    spec, weights = coreml.lower(program, tensors, COMPONENT, "iOS16")
    (folder / "weight.bin").write_bytes(weights.read_bytes())
    package = folder / "Direct.mlpackage"
    write_package(package, specification_version=spec.specificationVersion,
                  description=spec.description, program=decode_program(spec.mlProgram),
                  weights=folder / "weight.bin")
    return {p.name: p.read_bytes() for p in package.rglob("*") if p.is_file()}


@pytest.fixture
def lowerings(monkeypatch):
    """The weights of every lowering that ran."""
    ran, lower = [], coreml.lower
    monkeypatch.setattr(coreml, "lower", lambda program, weights, *more: (
        ran.append(weights), lower(program, weights, *more))[1])
    return ran


def test_stand_ins_survive_the_cast_to_fp16():
    for rows in StandIns({f"w{i}": (50, 3) for i in range(50)}).rows.values():
        assert (rows == rows.astype(np.float16)).all()


def test_numbers_that_programs_are_full_of_are_no_stand_ins():
    short = {whole / part for whole in range(1, 1024) for part in (1, 2, 4, 8, 16)}

    assert GRID.isdisjoint(short)


def test_rows_do_not_change_places_unseen():
    for rows in StandIns({"w": (9000, 3), "v": (40, 3)}).rows.values():
        assert len(set(rows.tolist())) == len(rows)


def test_there_are_stand_ins_for_networks_larger_than_today_s_and_a_limit_is_reported():
    shapes = {f"w{i}": (1,) for i in range(9216)}
    firsts = {float(rows[0]) for rows in StandIns(shapes).rows.values()}

    assert len(firsts) == 9216
    with pytest.raises(StepError, match="9217 parameters, expected at most 9216"):
        StandIns(shapes | {"w": (1,)})


def test_a_transposed_stand_in_is_known():
    stand_ins = StandIns({"a": (3, 5), "b": (3, 5)})
    array = stand_ins.tensors()["b"].numpy()

    assert stand_ins.parameter(array) == ("b", False)
    assert stand_ins.parameter(array.T) == ("b", True)
    assert stand_ins.parameter(array.reshape(3, 5, 1, 1)) == ("b", False)
    assert stand_ins.parameter(np.full((3, 5), 0.1, np.float32)) is None


@pytest.fixture(scope="module")
def replayed():
    """The constants of a lowered network, and the parameter of each, found with a seed."""
    program = graph(Network())
    shapes = {name: tuple(tensor.shape) for name, tensor in program.state_dict.items()}
    stand_ins = StandIns(shapes)
    with recording() as written:
        spec, _ = coreml.lower(program, stand_ins.tensors(), COMPONENT, "iOS16")
    found = identified(stand_ins, written, spec)
    assert any((c.array == 1).all() for c in found if c.parameter is None)
    return program, shapes, spec, found


@pytest.mark.parametrize("seeds", [200, pytest.param(3000, marks=pytest.mark.slow)])
def test_with_no_seed_of_thousands_a_constant_is_taken_for_a_parameter(replayed, seeds):
    """The lowering does not depend on the numbers, as the next test shows: so the blobs of a seed
    are those of another with its stand-ins in place of the other's."""
    program, shapes, spec, found = replayed
    blobs = [c for c in found if c.offset is not None]
    empty, avoid = type(spec)(), once.numbers_of(program)
    for seed in range(seeds):
        stand_ins = StandIns(shapes, avoid, seed)
        tensors = stand_ins.tensors()

        again = identified(stand_ins, [
            Written(name=c.name, dtype=c.dtype, offset=c.offset, array=c.array if not c.parameter
                    else tensors[c.parameter].numpy().reshape(c.array.shape))
            for c in blobs
        ], empty)

        assert [c.parameter for c in again] == [c.parameter for c in blobs]
        assert not any(c.clashing for c in again)


def test_a_lowered_program_does_not_depend_on_the_stand_ins(tmp_path):
    """So another draw of them is no new version of the step."""
    for seed in (1, 2):
        lowered(graph(Network()), tmp_path / str(seed), seed=seed)

    assert files(tmp_path / "1") == files(tmp_path / "2")


def test_a_number_that_the_graph_names_is_no_stand_in_s():
    program = graph(Using(lambda x, weight: (x * ON_GRID) @ weight))

    assert ON_GRID in once.numbers_of(program)
    rows = StandIns({"w": (9000, 1)}, once.numbers_of(program)).rows["w"]
    assert ON_GRID not in np.abs(rows)


def test_a_graph_whose_computed_constants_hold_stand_ins_numbers_is_lowered_again_without_them(
    tmp_path, lowerings,
):
    def use(x, weight):
        table = torch.arange(16, device=x.device) / 512 + ON_GRID
        return nn.functional.linear(x, weight) + table[:, None]
    program = graph(Using(use, rows=5000))
    tensors = numbers(program)

    found = lowered(program, tmp_path / "lowered")

    first, second = (set(ran["weight"].abs().flatten().tolist()) for ran in lowerings)
    table = {ON_GRID + number / 512 for number in range(16)}
    assert first & table and not second & table
    assert bound(found, tensors, tmp_path) == direct(program, tensors, tmp_path)


@pytest.mark.parametrize("use, message", [
    (lambda x, w: x @ w + w[3:4], "computed from parameters.*from weight"),
    (lambda x, w: (x @ w) * (w * 2 + 1), "computed constants from parameters"),
    (lambda x, w: x @ (w * 2), "weight: 0 times"),
    (lambda x, w: x @ w.flip(0), "computed from parameters.*from weight"),
], ids=["a part", "a part is doubled", "doubled", "turned around"])
def test_what_is_computed_from_a_parameter_is_refused_by_name(tmp_path, use, message):
    with pytest.raises(StepError, match=f"(?s){message}"):
        lowered(graph(Using(use)), tmp_path / "lowered")


def test_a_parameter_so_short_that_a_constant_may_equal_it_is_looked_at_twice(tmp_path, lowerings):
    program = graph(Using(lambda x, w: x * w, rows=1))

    found = lowered(program, tmp_path / "lowered")

    assert len(lowerings) == 2
    assert [b.parameter for b in found.bindings if b.parameter] == ["weight"]


def test_other_networks_are_lowered_once(tmp_path, lowerings):
    lowered(graph(Network()), tmp_path / "lowered")

    assert len(lowerings) == 1
