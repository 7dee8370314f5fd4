"""Graphs that torch makes with parts of it left out."""

import contextlib

import pytest
import torch
from torch import nn
from torch._export.serde import serialize
from torch.fx import GraphModule, config

from sdbuild.lowering.graph import Graph, write_graph
from sdbuild.lowering.sparing import sparing

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch.export


class Network(nn.Module):
    """One with what a graph has more than one form of: shared, cut and joined tensors."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)

    def forward(self, x):
        first, second = nn.functional.silu(self.norm(self.conv(x))).chunk(2, dim=1)
        first += 1.5
        return torch.cat([first.flatten(2), second.flatten(2)], dim=1).softmax(-1)


def bytes_of(folder, context):
    folder.mkdir()
    with context, torch.no_grad():
        network, inputs = Network().to("meta").eval(), (torch.zeros(1, 4, 8, 8, device="meta"),)
        program = torch.export.export(network, inputs).run_decompositions({})
        for node in program.graph.nodes:
            node.meta = {"val": node.meta["val"]} if "val" in node.meta else {}
        program._example_inputs = None
        write_graph(folder, Graph(program=program))
    return (folder / "graph.pt2").read_bytes()


def counted(calls, original):
    def call(*given, **named):
        calls.append(original.__name__)
        return original(*given, **named)
    return call


def test_a_graph_has_the_bytes_that_torch_alone_gives_it(tmp_path):
    alone = bytes_of(tmp_path / "alone", contextlib.nullcontext())

    assert bytes_of(tmp_path / "sparing", sparing()) == alone


def test_little_code_and_few_stack_traces_are_made(tmp_path, monkeypatch):
    made = []
    for owner, name in ((torch.fx.Graph, "python_code"),
                        (torch.utils._traceback.CapturedTraceback, "summary")):
        monkeypatch.setattr(owner, name, counted(made, getattr(owner, name)))

    bytes_of(tmp_path / "alone", contextlib.nullcontext())
    alone, made[:] = list(made), []
    bytes_of(tmp_path / "sparing", sparing())

    for name in ("summary", "python_code"):
        assert 0 < 2 * made.count(name) < alone.count(name)


def test_a_graph_that_is_called_nevertheless_has_its_code():
    graph = torch.fx.Graph()
    graph.output(graph.call_function(torch.add, (graph.placeholder("x"), 2)))

    with sparing():
        module = GraphModule(nn.Module(), graph)
        assert module(torch.ones(1)).item() == 3
    assert module(torch.ones(1)).item() == 3


def test_torch_is_as_before_afterwards():
    before = vars(GraphModule)["recompile"], serialize.canonicalize, \
        config.do_not_emit_stack_traces
    with contextlib.suppress(KeyError), sparing():
        assert GraphModule.recompile is not before[0]
        raise KeyError

    assert before == (vars(GraphModule)["recompile"], serialize.canonicalize,
                      config.do_not_emit_stack_traces)


def test_functions_that_are_not_as_expected_are_left_alone(monkeypatch):
    def recompile(self, again=False):
        return None
    monkeypatch.setattr(GraphModule, "recompile", recompile)
    monkeypatch.delattr(serialize, "canonicalize")
    monkeypatch.delattr(config, "do_not_emit_stack_traces")
    with sparing():
        assert GraphModule.recompile is recompile
        assert not hasattr(serialize, "canonicalize")
