"""Records of a build depend on keys alone."""

import dataclasses
import json

from sdbuild.engine.build import Builder, State
from sdbuild.engine.plan import plan
from sdbuild.recipe.recipe import load
from sdbuild.store import Store, key
from tests.store.artifacts import record


def test_provenance_has_the_same_bytes_in_whatever_order_files_were_found(tmp_path):
    """A bundle's key holds a digest that knows no order, and its manifest the text."""
    builder = Builder(plan(load({})), Store(tmp_path))
    step = builder.plan.steps["download:resources"]
    texts = set()
    for names in (("scheduler", "tokenizer", "README.md"), ("README.md", "tokenizer", "scheduler")):
        found = {"kind": "download", "version": 5, "params": {},
                 "source": {name: f"sha256:{name}" for name in names}}
        state = State(step=step, ingredients=found, key=key(found),
                      record=dataclasses.replace(record(), key=key(found)))
        texts.add(json.dumps(builder.provenance_of(state)))

    assert len(texts) == 1
