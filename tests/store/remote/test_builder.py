"""Steps that run when builds share a store, counted with three small stages."""

import json

import pytest

from sdbuild.reports.gc import collect
from tests.store.remote.builders import builder, content, has

pytestmark = pytest.mark.usefixtures("stages")


@pytest.fixture
def one(tmp_path):
    return builder(tmp_path / "one", str(tmp_path / "shared"))


@pytest.fixture
def two(tmp_path):
    return builder(tmp_path / "two", str(tmp_path / "shared"))


def spoil(folder, step, change):
    """Changes what the shared record of a step says."""
    for path in (folder / "shared" / "records").rglob("*.json"):
        found = json.loads(path.read_text())
        if found["record"]["step"] == step:
            change(found["record"])
            path.write_text(json.dumps(found))
            return found["record"]
    raise AssertionError(step)


def test_the_last_artifact_is_fetched_and_nothing_before_it(one, two, stages):
    made = one.make_all("compile:unet")
    stages.clear()

    record = two.make_all("compile:unet")

    assert stages == []
    assert content(one, made) == content(two, record)
    assert not has(two, "trace:unet") and not has(two, "chunk:unet")


def test_a_step_that_runs_here_fetches_only_the_part_that_it_reads(one, two, stages):
    one.make_all("trace:unet")
    stages.clear()

    two.make_all("chunk:unet")

    assert stages == ["chunk"]
    assert has(two, "trace:unet", "small") and not has(two, "trace:unet", "large")


def test_without_the_shared_content_of_an_input_it_is_made_here(one, two, stages, tmp_path):
    one.make_all("chunk:unet")
    for path in (tmp_path / "shared" / "objects").rglob("*"):
        if path.is_file():
            path.unlink()
    stages.clear()

    record = two.make_all("compile:unet")

    assert stages == ["trace", "chunk", "compile"]
    assert content(two, record)["small"] == "/trace/chunk/compile"


def test_a_record_that_lies_about_an_input_plants_nothing(one, two, stages, tmp_path, capsys):
    """The key of the step after it is of files that nobody has; it must not be used for others."""
    one.make_all("trace:unet")
    true = one.state("trace:unet").record

    def lie(record):
        for row in record["tree"]:
            row[1] = "f" * 31 + row[1][0]

    spoil(tmp_path, "trace:unet", lie)
    stages.clear()

    record = two.make_all("compile:unet")

    assert content(two, record)["small"] == "/trace/chunk/compile"
    assert two.state("trace:unet").record.tree == true.tree
    keys = {name: two.state(name).key for name in two.plan.steps}
    assert {r.key for r in two.store.records()} == set(keys.values())
    one.make_all("compile:unet")
    assert keys == {name: one.state(name).key for name in one.plan.steps}
    assert "it is made here" in capsys.readouterr().err


def test_a_full_store_with_a_new_remote_is_used_as_it_is(one, tmp_path, stages):
    one.make_all("compile:unet")
    stages.clear()
    moved = builder(tmp_path / "one", str(tmp_path / "elsewhere"))

    moved.make_all("compile:unet")

    assert stages == []


def test_gc_takes_nothing_from_the_shared_store_and_what_it_took_here_is_fetched(
    one, tmp_path, stages
):
    made = content(one, one.make_all("compile:unet"))
    shared = {p: p.read_bytes() for p in (tmp_path / "shared").rglob("*") if p.is_file()}
    stages.clear()

    collect(one.store)

    assert list(one.store.objects()) == []
    assert {p: p.read_bytes() for p in (tmp_path / "shared").rglob("*") if p.is_file()} == shared
    assert made == content(one, one.make_all("compile:unet"))
    assert stages == []
    assert not has(one, "trace:unet")  # nobody needs it
