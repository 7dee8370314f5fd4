"""A network's graph as a file: torch's exported program, its tensors without numbers, and the
precision that it is to be computed in."""

from __future__ import annotations

import contextlib
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from sdbuild.base.garbage import rare_searches
from sdbuild.base.versions import public_torch
from sdbuild.families.nouns import Precision

GRAPH = "graph.pt2"
_PRECISION = "precision"


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A graph, and what it is to be computed in; its file names no precision if that is fp16."""

    program: torch.export.ExportedProgram
    precision: Precision = "fp16"


def write_graph(folder: Path, graph: Graph) -> None:
    """Writes a graph into a folder; the same bytes by every build of a version of torch."""
    named = {_PRECISION: graph.precision} if graph.precision != "fp16" else None
    with public_torch():
        torch.export.save(graph.program, folder / GRAPH, extra_files=named)


@rare_searches()
def read_graph(folder: Path) -> Graph:
    """Returns the graph in a folder."""
    named: dict[str, Any] = {_PRECISION: ""}
    with _type_hints_of_each_class_once():
        program = torch.export.load(folder / GRAPH, extra_files=named)
    said = named[_PRECISION]
    found = said.decode() if isinstance(said, bytes) else said
    return Graph(program=program, precision=next(
        (known for known in get_args(Precision) if known == found), "fp16"))


@contextlib.contextmanager
def _type_hints_of_each_class_once() -> Iterator[None]:
    """Remembers the type hints of classes: torch asks for those of a node's class at each node,
    which took half of the time of reading a graph."""
    original = typing.get_type_hints
    known: dict[Any, dict[str, Any]] = {}

    def hints(cls: Any, *words: Any, **named: Any) -> dict[str, Any]:
        if cls not in known:
            known[cls] = original(cls, *words, **named)
        return known[cls]

    vars(typing)["get_type_hints"] = hints
    try:
        yield
    finally:
        vars(typing)["get_type_hints"] = original
