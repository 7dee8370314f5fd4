"""Bit recipes that name weights which the network does not have."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sdbuild.cli.main import main
from sdbuild.engine.build import Builder
from sdbuild.engine.named_weights import expect_named
from sdbuild.engine.plan import plan
from sdbuild.lowering.lowered import BINDINGS, read_bindings
from sdbuild.models.parameters import NET
from sdbuild.recipe.recipe import load
from sdbuild.store import Store

WORDS = ("palettize=unet,text_encoder", "target=iOS18")


@pytest.fixture
def build(tmp_path, monkeypatch, capsys):
    """Builds a step with bits for weights of a component; returns the status and what is said."""
    monkeypatch.chdir(tmp_path)

    def run(step, bits, *words):
        component = step.partition(":")[2]
        content = {"schema": 1, "components": {component: bits}}
        Path("bits.json").write_text(json.dumps(content), "utf-8")
        status = main(["build", step, "bits=bits.json", "cache=cache", *WORDS, *words])
        return status, capsys.readouterr().err

    return run


@pytest.mark.parametrize(("step", "wrong", "right"), [
    ("allocate:unet", "conv_on.weight", "conv_in.weight"),
    ("allocate:text_encoder", "embeddings.token_embeding.weight",
     "embeddings.token_embedding.weight"),
])
def test_a_name_of_no_weight_is_refused_before_anything_runs(step, wrong, right, build):
    status, said = build(step, {wrong: 8, "*": 4})

    assert status == 2
    assert f'has no weight {wrong}; did you mean "{right}"?' in said
    assert list(Store(Path("cache")).records()) == []


def test_names_of_weights_are_not_refused(build):
    assert build("allocate:unet", {"conv_in.weight": 8, "*": 4}) == (0, "")


def test_a_checkpoint_that_is_not_on_this_machine_is_not_asked(tmp_path):
    bits = {"schema": 1, "components": {"unet": {"conv_on.weight": 8, "*": 4}}}
    (tmp_path / "bits.json").write_text(json.dumps(bits), "utf-8")
    made = plan(load({"model": "tiny-emoji", "source": "hub:owner/name",
                      "bits": str(tmp_path / "bits.json")}))

    class Unasked:
        def resolve(self, source):
            raise AssertionError(source)

    expect_named(made.steps.values(), made, Unasked())


@pytest.mark.parametrize("model", ["tiny-emoji", "tiny-emoji-control"])
def test_every_weight_of_a_network_may_be_named(model, tmp_path):
    """By the names that its lowered program has for them."""
    kept = {"schema": 1, "components": {name: {"*": 4} for name in ("unet", "controlnet")}}
    (tmp_path / "bits.json").write_text(json.dumps(kept), "utf-8")
    made = Builder(plan(load({"model": model, "bits": str(tmp_path / "bits.json")})),
                   Store(tmp_path / "cache"))
    steps = [step for step in made.plan.steps.values() if step.kind == "allocate"]
    assert steps

    for step in steps:
        lowered = made.make_all(f"lower:{step.component}")
        _, bindings = read_bindings(made.file(lowered, BINDINGS))
        names = {b.parameter.removeprefix(NET): 8 for b in bindings if b.parameter}
        named = replace(step, params={"budget": {"bits": names | {"*": 4}}})
        assert len(names) > 100
        expect_named([named], made.plan, made.checkpoints)
