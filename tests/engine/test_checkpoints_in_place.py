"""Checkpoints on the store's disk: their weights are hashed by `download` and read in place."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints.normalized import WEIGHTS
from sdbuild.cli.main import main
from sdbuild.engine.build import Builder
from sdbuild.engine.plan import plan
from sdbuild.engine.sources import Checkpoints
from sdbuild.engine.step import Step
from sdbuild.engine.virtual import readers_allow_virtual
from sdbuild.recipe.recipe import load
from sdbuild.recipe.sources import Source
from sdbuild.reports.verify import verify
from sdbuild.reports.weight import component_of, follow
from sdbuild.store import Store

CHECKPOINT = Path(__file__).parents[2] / "recipes" / "tiny-emoji"
LAST, DOWNLOADED = "compile:text_encoder", "download:text_encoder"
CONVERTED, PALETTIZED = "convert:text_encoder", "palettize:text_encoder"


@pytest.fixture
def source(tmp_path):
    return Path(shutil.copytree(CHECKPOINT, tmp_path / "source"))


def builder(cache, source, virtual_from_bytes=0, digests=None, **words):
    recipe = load({"model": "tiny-emoji", "source": str(source), "quant": "6", **words})
    made = Builder(plan(recipe), Store(cache), digests=digests)
    made.virtual_from_bytes = virtual_from_bytes
    return made


@pytest.fixture
def lean(source, tmp_path):
    """A build that left the checkpoint where it is."""
    made = builder(tmp_path / "cache", source)
    made.make_all(LAST)
    return made


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A build that copied it."""
    made = builder(tmp_path_factory.mktemp("stored"), CHECKPOINT, 1 << 60)
    made.make_all(LAST)
    return made


def missing(made, name):
    return [entry.path for entry in made.store.missing(made.state(name).record)]


def test_only_its_weights_are_not_stored_and_all_that_is_made_of_them_is_the_same(lean, stored):
    assert missing(lean, DOWNLOADED) == [WEIGHTS]
    assert missing(stored, DOWNLOADED) == []
    assert {n: s.record.digest() for n, s in lean.states([LAST]).items()} == {
        n: s.record.digest() for n, s in stored.states([LAST]).items()}
    assert verify(lean.store).is_whole


def test_other_bits_are_read_from_it_and_nothing_else_runs(lean, source, stored):
    before = {record.key for record in lean.store.records()}
    again = builder(lean.store.root, source, quant="4")

    again.make_all(LAST)

    assert {r.step for r in again.store.records() if r.key not in before} == {PALETTIZED, LAST}
    assert missing(again, DOWNLOADED) == [WEIGHTS]
    assert again.state(LAST).record.digest() == builder(
        stored.store.root, CHECKPOINT, 1 << 60, quant="4").make_all(LAST).digest()


def test_one_in_the_hubs_cache_is_read_through_its_links(stored, source, tmp_path):
    """huggingface_hub's `snapshots/COMMIT` holds links to `blobs`."""
    repository = tmp_path / "models--owner--name"
    blobs, snapshot = repository / "blobs", repository / "snapshots" / ("0" * 40)
    blobs.mkdir(parents=True)
    for number, file in enumerate(p for p in sorted(source.rglob("*")) if p.is_file()):
        link = snapshot / file.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        file.rename(blobs / str(number))
        link.symlink_to(os.path.relpath(blobs / str(number), link.parent))
    made = builder(tmp_path / "cache", snapshot)

    made.make_all(LAST)

    assert missing(made, DOWNLOADED) == [WEIGHTS]
    assert made.state(LAST).record.digest() == stored.state(LAST).record.digest()


def test_a_step_that_needs_the_file_has_it_stored(lean, stored):
    record = lean.make(DOWNLOADED)

    assert missing(lean, DOWNLOADED) == []
    lean.store.verify(record)
    assert record.digest() == stored.state(DOWNLOADED).record.digest()


def test_coremltools_converts_it_in_place(lean, source, stored):
    made = builder(lean.store.root, source, lower="direct")

    made.make_all(CONVERTED, is_whole=False)

    assert missing(made, DOWNLOADED) == [WEIGHTS]
    assert made.state(CONVERTED).record.digest() == stored.state(CONVERTED).record.digest()


def test_one_on_another_disk_is_copied(source, tmp_path):
    elsewhere = Path("/dev/shm") / f"sdbuild-test-{os.getpid()}"
    if not elsewhere.parent.is_dir() or \
            elsewhere.parent.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    try:
        shutil.copytree(source, elsewhere)
        made = builder(tmp_path / "cache", elsewhere)
        made.make_all(CONVERTED, is_whole=False)

        assert missing(made, DOWNLOADED) == []
    finally:
        shutil.rmtree(elsewhere, ignore_errors=True)


@pytest.mark.parametrize("words", [
    {"source": "hub:owner/name"},
    {"source": f"{CHECKPOINT}, hub:owner/name"},
    {"lora": "style.safetensors:0.8"},
    {"quant": "4.0"},
], ids=["of the Hub", "perhaps of the Hub", "with LoRAs", "calibrated"])
def test_others_are_stored(words):
    made = plan(load({"model": "tiny-emoji", **words}))

    assert not readers_allow_virtual(made.steps[DOWNLOADED], made)


def test_a_locked_one_is_stored_for_its_source_may_go(source, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(f'family = "sd"\nsource = "{source}"\nsize = 128\n'
                      'components = ["text_encoder"]\n')
    assert main(["lock", str(recipe), f"cache={tmp_path / 'other'}"]) == 0
    made = Builder(plan(load({"model": str(recipe), "quant": "6"})), Store(tmp_path / "cache"))
    made.virtual_from_bytes = 0
    made.make_all(LAST)
    shutil.rmtree(source)

    again = Builder(plan(load({"model": str(recipe), "quant": "4"})), made.store)
    again.virtual_from_bytes = 0
    again.make_all(LAST)

    assert missing(again, DOWNLOADED) == []


def builder_that_meets(harm, lean, source, digests=None):
    """A builder, and the file of the checkpoint that is harmed while it palettizes."""
    [file] = (source / "text_encoder").glob("*.safetensors")
    made = builder(lean.store.root, source, digests=digests, quant="4")

    @contextlib.contextmanager
    def change(step, seconds):
        assert step == PALETTIZED
        if harm == "deleted":
            file.unlink()
        elif harm == "moved":
            source.rename(source.with_name("elsewhere"))
        elif harm == "cut":
            os.truncate(file, file.stat().st_size // 2)
        else:
            file.write_bytes(file.read_bytes()[:-64] + bytes(64))
        yield None

    made.watches = change
    return made, file


@pytest.mark.parametrize("harm", ["replaced", "cut"])
def test_a_change_of_it_while_a_step_reads_it_is_said_and_nothing_is_kept(
    lean, source, harm
):
    made, file = builder_that_meets(harm, lean, source)

    with pytest.raises(SourceError) as refused:
        made.make_all(PALETTIZED)

    assert str(refused.value) == (
        f"{PALETTIZED}: {source}: text_encoder/{file.name} changed while it was read\n\n"
        "hint: run the same command again once nothing writes to it")
    assert [r.ingredients["params"]["nbits"] for r in made.store.records()
            if r.step == PALETTIZED] == [6]


def test_another_machines_checkpoint_is_thought_of_where_the_digests_came_from_one(lean, source):
    planned = {DOWNLOADED: lean.checkpoints.digests(lean.plan.steps[DOWNLOADED])}
    made, _ = builder_that_meets("replaced", lean, source, planned)

    with pytest.raises(SourceError, match="read, or is another one than on the machine that plan"):
        made.make_all(PALETTIZED)


@pytest.mark.parametrize("harm", ["deleted", "moved"])
def test_a_checkpoint_that_goes_while_a_step_reads_it_is_said_with_the_step(lean, source, harm):
    made, _ = builder_that_meets(harm, lean, source)

    with pytest.raises(SourceError, match=f"^{PALETTIZED}: while it was read: {source}"):
        made.make_all(PALETTIZED)


def test_a_weight_is_followed_through_it(lean, stored):
    component = component_of(stored.plan.recipe, "text_encoder")
    name = "text_model.embeddings.token_embedding.weight"

    found, wanted = (
        [(stop.step, stop.facts) for stop in follow(made, component, name)]
        for made in (lean, stored))

    assert found == wanted


@pytest.mark.parametrize(("changed", "said"), [("0", "a.safetensors"), ("1", "b.safetensors"),
                                               ("1/adapter_config.json", "adapter_config.json")])
def test_a_lora_that_changed_is_named_by_its_file(changed, said, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").touch()
    checkpoints = Checkpoints(Store(tmp_path / "cache"))
    files = Source(places=(str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")),
                   are_files=True)
    step = Step(kind="download", source=files)

    assert checkpoints._shown(step, changed) == str(tmp_path / said)
