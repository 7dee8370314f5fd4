"""Graphs in files."""

import collections
import typing

import pytest
import torch

from sdbuild.lowering.graph import Graph, read_graph, write_graph


@pytest.mark.filterwarnings("ignore")  # of torch.export
def test_a_graph_is_read_as_it_was_written_and_asks_no_class_twice_for_its_type_hints(
    tmp_path, monkeypatch,
):
    network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4))
    program = torch.export.export(network, (torch.zeros(1, 4),)).run_decompositions({})
    asked = collections.Counter()
    original = typing.get_type_hints

    def counted(cls, *words, **named):
        asked[cls] += 1
        return original(cls, *words, **named)

    write_graph(tmp_path, Graph(program=program))
    monkeypatch.setattr(typing, "get_type_hints", counted)
    found = read_graph(tmp_path).program

    assert str(found.graph) == str(program.graph)
    assert set(asked.values()) == {1}
    assert typing.get_type_hints is counted
