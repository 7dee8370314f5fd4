"""The order in which steps are handed out."""

from sdbuild.cluster.order import priorities
from sdbuild.engine.graph import Graph, Node


def chains(*lengths):
    """Returns the graph of some plans, each of so many steps, one after the other."""
    nodes = {}
    for plan, length in enumerate(lengths):
        for number in range(length):
            name = f"{plan}-{number}"
            nodes[name] = Node(name=name, step=None, plan=None,
                               needs=(f"{plan}-{number - 1}",) if number else ())
    return Graph(nodes=nodes, members={}, targets={})


def test_the_longest_path_goes_first():
    found = priorities(chains(3, 2), {
        "0-0": 1.0, "0-1": 10.0, "0-2": 2.0, "1-0": 5.0, "1-1": 3.0}, workers=2)

    assert found == {"0-0": 13.0, "0-1": 12.0, "0-2": 2.0, "1-0": 8.0, "1-1": 3.0}


def test_of_several_readers_the_one_with_the_longest_path_counts():
    needs = {"trace": (), "lower": ("trace",), "short": ("trace",), "bundle": ("lower", "short")}
    nodes = {name: Node(name=name, step=None, needs=needs[name], plan=None) for name in needs}
    found = priorities(Graph(nodes=nodes, members={}, targets={}), {
        "trace": 20.0, "lower": 10.0, "short": 1.0, "bundle": 0.5}, workers=3)

    assert found == {"trace": 30.5, "lower": 10.5, "short": 1.5, "bundle": 0.5}


def test_many_plans_on_few_workers_are_built_one_after_the_other():
    many = chains(*[2] * 100)
    seconds = dict.fromkeys(many.nodes, 1.0)

    assert set(priorities(many, seconds, workers=20).values()) == {0.0}
    assert set(priorities(many, seconds, workers=50).values()) == {2.0, 1.0}
