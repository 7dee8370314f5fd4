"""Packages with a virtual weight file: `convert` records its digest, and `palettize`, `allocate`
and `assign` read the checkpoint."""

import json
from shutil import copytree

import pytest

from sdbuild.cli.main import main
from sdbuild.engine.build import Builder
from sdbuild.engine.plan import plan
from sdbuild.recipe.recipe import load
from sdbuild.reports.verify import verify
from sdbuild.reports.weight import component_of, follow
from sdbuild.reports.why import why
from sdbuild.store import Store
from sdbuild.store.remote.remote import Remote
from tests.engine.chains import rot

LAST = "compile:text_encoder"
CONVERTED, PALETTIZED = "convert:text_encoder", "palettize:text_encoder"


def builder(cache, virtual_from_bytes=0, **words):
    made = Builder(plan(load({"model": "tiny-emoji", "quant": "6", **words})), Store(cache))
    made.virtual_from_bytes = virtual_from_bytes
    return made


def weights(record):
    (entry,) = (e for e in record.tree if e.path.endswith("weight.bin"))
    return entry


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A build that stores all packages."""
    made = builder(tmp_path_factory.mktemp("written"), 1 << 60)
    made.make_all(LAST)
    return made


@pytest.fixture(scope="module")
def whole_store(tmp_path_factory):
    """A store in which a build left the weight file of the package virtual."""
    folder = tmp_path_factory.mktemp("virtual")
    builder(folder).make_all(LAST)
    return folder


@pytest.fixture
def lean(whole_store, tmp_path):
    """A copy of it, to change."""
    return copytree(whole_store, tmp_path / "cache")


def ran(made, name):
    """The steps that making one runs, in order of their names."""
    before = {record.key: record.made_at for record in made.store.records()}
    tree = {record.key: made.store.missing(record) for record in made.store.records()}
    made.make_all(name)
    return sorted(r.step for r in made.store.records()
                  if r.key not in before or len(made.store.missing(r)) < len(tree[r.key]))


def test_every_artifact_is_the_same_and_only_the_weights_are_missing(written, whole_store):
    made = builder(whole_store)
    states, others = made.states([LAST]), written.states([LAST])

    assert {n: s.record.digest() for n, s in states.items()} == {
        n: s.record.digest() for n, s in others.items()}
    missing = {n: [e.path for e in made.store.missing(s.record)] for n, s in states.items()}
    assert missing.pop(CONVERTED) == [weights(states[CONVERTED].record).path]
    assert set(missing) - {n for n, paths in missing.items() if not paths} <= {
        "trace:text_encoder",  # whose graph does not ship
        "download:text_encoder"}  # read in place, on the store's disk
    assert not written.store.missing(others[CONVERTED].record)


def test_verify_does_not_report_it(lean):
    assert verify(Store(lean)).is_whole


def test_other_bits_are_made_of_the_checkpoint_without_another_conversion(lean, written):
    made = builder(lean, quant="4")

    assert ran(made, LAST) == [LAST, PALETTIZED]
    other = builder(written.store.root, 1 << 60, quant="4").make_all(LAST)
    assert made.state(LAST).record.digest() == other.digest()


def test_bits_of_each_weight_are_assigned_from_the_checkpoint_too(tmp_path, written):
    bits = tmp_path / "bits.json"
    bits.write_text(json.dumps({"schema": 1, "components": {"text_encoder": {"*": 4}}}))
    made = builder(tmp_path / "cache", bits=str(bits))
    last = made.make_all(LAST)

    state = made.state(CONVERTED)
    assert [e.path for e in made.store.missing(state.record)] == [weights(state.record).path]
    whole = builder(written.store.root, 1 << 60, bits=str(bits))
    assert whole.make_all(LAST).digest() == last.digest()
    assert not written.store.missing(whole.state(CONVERTED).record)


def test_the_package_is_whole_when_it_is_asked_for(lean, written, tmp_path):
    made = builder(lean)

    out = made.deliver(CONVERTED, lambda record: made.store.checkout(record, tmp_path / "out"))

    entry = weights(written.state(CONVERTED).record)
    assert (out / entry.path).read_bytes() == written.store.object(entry.digest).read_bytes()


def test_without_palettes_it_is_stored(lean):
    made = builder(lean, quant="none")

    assert ran(made, LAST) == [LAST, CONVERTED]
    assert not made.store.missing(made.state(CONVERTED).record)


def test_small_ones_are_stored(tmp_path, written):
    size = weights(written.state(CONVERTED).record).size_bytes
    made = builder(tmp_path, size + 1)
    made.make_all(CONVERTED, is_whole=False)

    assert not made.store.missing(made.state(CONVERTED).record)


def test_with_a_shared_store_it_is_stored(tmp_path):
    store = Store(tmp_path / "cache")
    made = Builder(plan(load({"model": "tiny-emoji", "quant": "6"})), store,
                   remote=Remote(str(tmp_path / "shared"), store))
    made.virtual_from_bytes = 0
    made.make_all(CONVERTED, is_whole=False)

    assert not store.missing(made.state(CONVERTED).record)


def test_a_checkpoint_that_was_damaged_since_is_taken_in_again(lean, written):
    made = builder(lean, quant="4")
    record = made.make("download:text_encoder")
    for entry in record.tree:
        rot(made.store.object(entry.digest))

    made.make_all(PALETTIZED)

    made.store.verify(record)
    assert made.state(PALETTIZED).record.digest() == builder(
        written.store.root, 1 << 60, quant="4").make_all(PALETTIZED).digest()


def test_files_beside_them_that_were_lost_are_made_again(lean):
    made = builder(lean, quant="4")
    record = made.state(CONVERTED).record
    for entry in record.tree:
        made.store.object(entry.digest).unlink(missing_ok=True)

    assert CONVERTED in ran(made, LAST)
    assert [e.path for e in made.store.missing(record)] == [weights(record).path]


def test_why_says_what_runs(lean):
    def states(**words):
        return {r.step: r.state for r in why(LAST, {"model": "tiny-emoji", "cache": str(lean),
                                                    **words})}

    assert states(quant="4")[CONVERTED] == "up to date"
    assert states(quant="none")[CONVERTED] == "would run"


def test_it_is_up_to_date_where_it_is_named(lean):
    words = {"model": "tiny-emoji", "quant": "6", "cache": str(lean)}
    assert {r.state for r in why(CONVERTED, words)} == {"up to date"}

    assert main(["build", CONVERTED, "quant=6", f"cache={lean}"]) == 0

    record = builder(lean).state(CONVERTED).record
    assert [e.path for e in Store(lean).missing(record)] == [weights(record).path]


def test_a_weight_is_followed_through_it(lean, written):
    component = component_of(written.plan.recipe, "text_encoder")
    name = "text_model.embeddings.token_embedding.weight"

    (found,), (wanted,) = (
        [stop.places for stop in follow(made, component, name) if stop.step == CONVERTED]
        for made in (builder(lean), written))

    assert found == wanted != ()


def test_history_says_that_a_part_is_stored(lean, capsys):
    assert main(["history", CONVERTED, f"cache={lean}"]) == 0

    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("(in part)")
