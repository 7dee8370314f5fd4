"""A graph is of an architecture, and of nothing else."""

import json
from pathlib import Path

import pytest
import torch

from sdbuild.base.digest import canonical
from sdbuild.checkpoints.normalize import architecture
from sdbuild.engine.stage import Job, stage
from sdbuild.recipe.recipe import load

CHECKPOINT = Path(__file__).parent.parent.parent / "recipes" / "tiny-emoji"


@pytest.mark.filterwarnings("ignore")
def test_a_torch_for_linux_writes_the_graph_that_the_same_torch_writes_on_a_mac(
    tmp_path, monkeypatch,
):
    """Each calls itself as on its own system; PyPI's for Linux as well, unlike its metadata."""
    recipe = load({})
    component = next(c for c in recipe.components if c.name == "text_encoder")
    config = json.loads((CHECKPOINT / "text_encoder" / "config.json").read_text())
    (tmp_path / "architecture.json").write_bytes(canonical(architecture("text_encoder", config)))

    graphs = {}
    for version in ("2.13.0", "2.13.0+cpu", "2.13.0+cu130", "2.13.1"):
        monkeypatch.setattr(torch, "__version__", type(torch.__version__)(version))
        output = tmp_path / version
        output.mkdir()
        stage("trace").run(Job(
            params=stage("trace").params(recipe, component), output=output,
            inputs={"architecture": tmp_path / "architecture.json"},
        ))
        graphs[version] = (output / "graph.pt2").read_bytes()

    assert graphs["2.13.0"] == graphs["2.13.0+cpu"] == graphs["2.13.0+cu130"]
    assert graphs["2.13.0"] != graphs["2.13.1"]
