"""A network's graph as a file: torch's exported program, its tensors without numbers."""

from __future__ import annotations

from pathlib import Path

import torch

from sdbuild.base.versions import public_torch

GRAPH = "graph.pt2"


def write_graph(folder: Path, program: torch.export.ExportedProgram) -> None:
    """Writes a graph into a folder; the same bytes by every build of a version of torch."""
    with public_torch():
        torch.export.save(program, folder / GRAPH)


def read_graph(folder: Path) -> torch.export.ExportedProgram:
    """The graph in a folder."""
    return torch.export.load(folder / GRAPH)
