"""The steps of several plans as one graph: what is shared, and the order of the plans."""

from sdbuild.engine.graph import graph, in_build_order
from sdbuild.engine.plan import plan
from sdbuild.recipe.recipe import load


def plans(*rows, **words):
    return {" ".join(row.values()): plan(load(words | row)) for row in rows}


def kinds(found, names):
    return sorted({found.nodes[name].step.kind for name in names})


def test_variants_share_every_step_that_does_not_know_of_what_differs():
    found = graph(plans({"quant": "4"}, {"quant": "6"}), lambda each: ("bundle",))
    four, six = (set(found.members[name]) for name in ("4", "6"))

    assert kinds(found, four & six) == ["compile", "convert", "download", "lower", "trace"]
    assert kinds(found, four - six) == ["bundle", "chunk", "compile", "palettize"]
    assert {found.nodes[name].step.component for name in four & six
            if found.nodes[name].step.kind == "compile"} == {"vae_decoder", "vae_encoder"}
    assert len(found.nodes) == len(four | six)


def test_every_step_stands_after_those_that_it_needs_and_has_one_name():
    found = graph(plans({"quant": "4"}, {"quant": "4", "attention": "split_einsum"}),
                  lambda each: ("bundle",))
    names = list(found.nodes)

    assert len(set(names)) == len(names)
    assert all(names.index(need) < names.index(node.name)
               for node in found.nodes.values() for need in node.needs)
    assert found.nodes == graph(plans({"quant": "4"}, {"quant": "4", "attention": "split_einsum"}),
                                lambda each: ("bundle",)).nodes


def test_checkpoints_of_one_architecture_share_what_is_made_of_that_alone():
    two = plans({"source": "a"}, {"source": "b"}, model="tiny-emoji")
    unknown = graph(two, lambda each: ("lower:unet",))
    known = graph(two, lambda each: ("lower:unet",), lambda step: "digest")

    assert len(unknown.nodes) == 6
    assert kinds(known, set(known.members["a"]) & set(known.members["b"])) == ["lower", "trace"]
    assert len(known.nodes) == 4


def test_plans_that_share_what_is_made_early_stand_side_by_side():
    rows = [{"quant": quant, "attention": attention}
            for quant in ("4", "6") for attention in ("original", "split_einsum")]
    assert in_build_order(graph(plans(*rows), lambda each: ("bundle",))) == [
        "4 original", "6 original", "4 split_einsum", "6 split_einsum"]
