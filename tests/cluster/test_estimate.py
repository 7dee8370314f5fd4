"""Estimates of builds on a cluster: what runs once, what it takes, and what is uploaded."""

import pytest

from sdbuild.cluster.estimate import estimate
from sdbuild.store import Store
from tests.engine.test_cost import build_all, builder

SECONDS = 7.0
"""Of each step that `build_all` notes."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A store with everything of the variant with 4 bits."""
    folder = tmp_path_factory.mktemp("cache")
    build_all(folder, quant="4")
    return folder


def found(cache, **variants):
    builders = {name: builder(cache, quant=quant) for name, quant in variants.items()}
    costs = next(iter(builders.values())).costs
    return estimate(builders, lambda plan: ["bundle"], costs.architecture, 125e6)


def test_what_variants_share_is_one_task_and_what_is_made_does_not_run(cache):
    four, six, both = (found(cache, **variants) for variants in (
        {"four": "4"}, {"six": "6"}, {"four": "4", "six": "6"}))

    assert (four.running, four.seconds) == (0, 0)
    assert both.steps == four.tasks + six.tasks
    assert both.running == six.running > 0
    assert both.tasks == four.tasks + six.running


def test_time_and_bytes_are_those_of_similar_steps(cache):
    plan = builder(cache, quant="6").plan
    made = {record.step: record.size_bytes for record in Store(cache).records()}
    own = [name for name in made if name.startswith(("palettize", "chunk", "bundle"))
           or name in ("compile:unet", "compile:text_encoder")]
    six = found(cache, six="6")

    assert set(own) <= set(plan.steps)
    assert (six.running, six.seconds) == (len(own), SECONDS * len(own))
    assert six.made_bytes == sum(made[name] for name in own)
    assert six.uploaded_bytes == six.made_bytes, "bytes that take less time to send than to make"
    assert (six.timeless, six.sizeless) == (0, 0)


def test_of_what_never_ran_the_size_is_unknown(cache, tmp_path):
    new = found(tmp_path, six="6")

    assert new.running == new.sizeless == new.tasks
    assert f"({new.tasks} tasks of unknown size)" in str(new)
