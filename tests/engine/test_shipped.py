"""Programs that ship with sdbuild: found by what they are made of, and never guessed."""

import json
import lzma
import os
import shutil
import subprocess
import sys

import pytest
import xxhash

from sdbuild.base import versions
from sdbuild.base.digest import digest_bytes, digest_file
from sdbuild.base.errors import CorruptArtifact, StepError
from sdbuild.checkpoints import normalize
from sdbuild.checkpoints.normalized import ARCHITECTURE, encode
from sdbuild.cli.main import main
from sdbuild.engine import build
from sdbuild.engine.build import Builder
from sdbuild.engine.plan import plan
from sdbuild.engine.shipped import PROGRAMS, Shipped
from sdbuild.engine.stage import stage
from sdbuild.lowering.lowered import read_lowered
from sdbuild.mil.ir.decode import decode_program
from sdbuild.recipe.recipe import load
from sdbuild.store import SHIPPED, Entry, Store
from sdbuild.store.record import tree_digest
from tests.test_rules import ROOT

CONFIGS = ROOT / "tests" / "fixtures" / "configs"


@pytest.fixture
def ran(monkeypatch):
    """The kinds of the steps that ran."""
    kinds = []
    real = build.run_step

    def counted(kind, job, work, watch, **how):
        kinds.append(kind)
        return real(kind, job, work, watch, **how)

    monkeypatch.setattr(build, "run_step", counted)
    return kinds


@pytest.fixture(scope="session")
def downloaded(tmp_path_factory):
    """A store with the checkpoint of the built-in U-Net, to be copied."""
    folder = tmp_path_factory.mktemp("downloaded")
    Builder(plan(load({"model": "tiny-emoji"})), Store(folder)).make("download:unet")
    return folder


@pytest.fixture
def cache(downloaded, tmp_path):
    return shutil.copytree(downloaded, tmp_path / "cache")


def builder(cache, **words):
    return Builder(plan(load({"model": "tiny-emoji"} | words)), Store(cache))


def own_programs(found, tmp_path):
    """Lets a builder have a copy of the programs, which a test may change."""
    found.shipped = Shipped(shutil.copytree(PROGRAMS, tmp_path / "programs"))
    return found.shipped.folder


def test_a_known_architecture_is_neither_traced_nor_lowered(cache, ran):
    found = builder(cache)

    record = found.make_all("lower:unet")

    assert ran == []
    assert record.origin == SHIPPED
    for entry in record.tree:
        assert digest_file(found.store.object(entry.digest)) == entry.digest
    assert {"trace:unet", "lower:unet"} <= {r.step for r in found.store.records()}


def test_history_does_not_call_evicted_what_was_never_here(cache, capsys):
    builder(cache).make_all("lower:unet")

    assert main(["history", "trace:unet", f"cache={cache}"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert line.endswith("  (ships)")


def test_planning_a_known_architecture_writes_nothing(cache):
    before = sorted(path for path in cache.rglob("*") if path.is_file())

    assert builder(cache).is_made("lower:unet")

    assert sorted(path for path in cache.rglob("*") if path.is_file()) == before


def test_other_versions_of_tools_here_use_what_ships_and_the_record_names_those_that_made_it(
    cache, monkeypatch
):
    monkeypatch.setattr(versions, "_installed", lambda package, changes: "0.0.1")

    state = builder(cache).state("lower:unet")

    assert state.record.ingredients["tools"]["torch"] not in ("0.0.1", "")
    assert state.ingredients == state.record.ingredients


def test_another_layout_is_lowered_here(cache):
    assert not builder(cache, attention="split_einsum_v2", size="192x64").is_made("trace:unet")


def test_lower_here_uses_nothing_that_ships_even_if_the_store_has_it(cache):
    builder(cache).make_all("lower:unet")

    assert not builder(cache, lower="here").is_made("trace:unet")
    assert builder(cache).is_made("lower:unet")


def test_a_convert_step_is_the_same_wherever_it_was_lowered(cache):
    shipped, own = (plan(load({"model": "tiny-emoji", "lower": how})).steps["convert:unet"]
                    for how in ("once", "here"))

    assert shipped == own


def test_a_graph_does_not_ship_and_is_made_here_by_the_tools_that_made_it(cache, ran):
    found = builder(cache)

    record = found.make("trace:unet")

    assert ran == ["trace"]
    assert found.store.has_content(record)


def test_other_tools_do_not_make_a_graph_under_the_name_of_those_that_made_it(cache, monkeypatch):
    monkeypatch.setattr(versions, "_installed", lambda package, changes: "0.0.1")

    with pytest.raises(StepError, match=r"trace:unet: it does not ship.*here is 0\.0\.1") as raised:
        builder(cache).make("trace:unet")

    assert "lower=here" in raised.value.hint


def test_a_graph_of_which_another_program_is_made_is_that_of_the_tools_here(cache, monkeypatch):
    monkeypatch.setattr(versions, "_installed", lambda package, changes: "0.0.1")
    builder(cache).make_all("lower:unet")

    state = builder(cache, target="iOS17").state("trace:unet")

    assert state.record is None
    assert state.ingredients["tools"]["torch"] == "0.0.1"


def test_content_that_was_collected_is_taken_from_the_package_again(cache, ran):
    found = builder(cache)
    record = found.make_all("lower:unet")
    found.store.evict(entry.digest for entry in record.tree)

    again = builder(cache).make("lower:unet")

    assert found.store.has_content(again)
    assert ran == []


@pytest.mark.parametrize("content", [b"", b"no xz", lzma.compress(b"another program")])
def test_a_damaged_program_is_refused_with_what_helps(cache, tmp_path, content):
    found = builder(cache)
    folder = own_programs(found, tmp_path)
    for path in folder.glob("objects/*"):
        path.write_bytes(content)

    with pytest.raises(CorruptArtifact) as raised:
        found.make_all("lower:unet")

    assert "install sdbuild again" in raised.value.hint
    assert not found.store.has_content(found.state("lower:unet").record)


@pytest.mark.parametrize("text", ["", "{}", '{"records": 3}', '{"records": [{}]}',
                                  '{"records": [{"key": "../x", "tree": []}]}'])
def test_a_damaged_table_is_refused_with_what_helps(cache, tmp_path, text):
    found = builder(cache)
    (own_programs(found, tmp_path) / "records.json").write_text(text)

    with pytest.raises(CorruptArtifact) as raised:
        found.is_made("lower:unet")

    assert "install sdbuild again" in raised.value.hint


def test_every_program_is_of_the_steps_as_they_are_now():
    """If not: `python -m scripts.programs`, which lowers those of another version again."""
    records = Shipped().records.values()

    assert {(r.ingredients["kind"], r.ingredients["version"]) for r in records} == {
        (kind, stage(kind).version) for kind in ("trace", "lower")}


def test_the_folder_holds_the_files_of_its_records_and_no_others():
    shipped = Shipped()
    wanted = {shipped.object(entry.digest) for record in shipped.records.values()
              for entry in record.tree if record.step.startswith("lower:")}

    assert set(PROGRAMS.glob("objects/*")) == wanted
    for path in wanted:
        content = lzma.decompress(path.read_bytes())
        assert path.stem == xxhash.xxh3_128_hexdigest(content)


def test_every_program_has_a_place_for_each_parameter_exactly_once(tmp_path):
    shipped = Shipped()
    for record in shipped.records.values():
        if not record.step.startswith("lower:"):
            continue
        folder = tmp_path / record.key
        folder.mkdir()
        for entry in record.tree:
            content = lzma.decompress(shipped.object(entry.digest).read_bytes())
            (folder / entry.path).write_bytes(content)
        program = read_lowered(folder)

        bound = [b.parameter for b in program.bindings if b.parameter is not None]
        assert sorted(bound) == sorted(program.parameters)
        assert decode_program(program.spec.mlProgram).functions["main"].block.operations


def test_every_program_is_of_a_graph_whose_record_is_there():
    records = list(Shipped().records.values())
    graphs = {r.digest() for r in records if r.step.startswith("trace:")}

    assert {r.ingredients["inputs"]["graph"] for r in records if r.step.startswith("lower:")} \
        == graphs


@pytest.mark.parametrize(("model", "part"), [
    ("stable-diffusion-v1-5", "text_encoder"), ("stable-diffusion-v1-5", "unet"),
    ("stable-diffusion-v1-5", "vae"), ("stable-diffusion-2-1", "unet"),
    ("stable-diffusion-2-1", "vae"), ("stable-diffusion-xl-base-1.0", "unet"),
    ("stable-diffusion-xl-base-1.0", "text_encoder"),
])
def test_a_published_config_has_the_architecture_of_a_program(model, part):
    """The configs as the Hub has them; what else tells of a network is as in the base models."""
    config = json.loads((CONFIGS / model / part / "config.json").read_text("utf-8"))
    family = "sdxl" if "xl" in model else "sd"
    content = encode(normalize.architecture(part, config, family))
    known = {r.ingredients["inputs"]["architecture"] for r in Shipped().records.values()
             if r.step.startswith("trace:")}

    assert tree_digest((Entry(ARCHITECTURE, digest_bytes(content), len(content)),)) in known


def test_no_record_names_the_machine_that_made_it():
    text = (PROGRAMS / "records.json").read_text("utf-8")

    assert {row["host"] for row in json.loads(text)["records"]} == {""}
    assert "/tmp/" not in text


@pytest.mark.slow
def test_programs_that_are_lowered_again_are_those_that_ship(tmp_path):
    """Of the built-in model; others: `python -m scripts.programs --again`."""
    done = subprocess.run(
        [sys.executable, "-m", "scripts.programs", "--again", "tiny-emoji"], cwd=ROOT,
        env=os.environ | {"SDBUILD_CACHE": str(tmp_path), "PYTHONWARNINGS": "ignore"},
        capture_output=True, text=True, check=False)

    found = [line.split()[:2] for line in done.stdout.splitlines()]
    assert found == [["same", f"lower:{name}"] for name in (
        "text_encoder", "unet", "vae_decoder", "vae_encoder")], done.stderr
    assert done.returncode == 0
