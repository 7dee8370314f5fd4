"""The store's commands on real steps. Those of `download` are cheap; the rest share one build."""

import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import threading
import time

import pytest
import xxhash

from sdbuild.engine import build
from sdbuild.engine.plan import plan
from sdbuild.recipe.recipe import load
from sdbuild.recipe.settings import settings
from sdbuild.store import Store
from tests.e2e.project import ROOT, Project, run


def sdbuild(project, *words, status=0):
    return run([sys.executable, "-m", "sdbuild", *words, "--cache", str(project.cache)], status)


def rot(path):
    """Another byte, the same time: as a failing disk does it, seen by no stamp."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def only(project, step):
    (record,) = [r for r in Store(project.cache).records() if r.step == step]
    return record


def file_of(project, step, name):
    record = only(project, step)
    return Store(project.cache).object(record.part(name)[0].digest)


@pytest.fixture
def downloaded(tmp_path):
    project = Project(tmp_path)
    project.doit("download")
    return project


def test_damage_that_verify_finds_is_made_again_when_it_is_needed(downloaded):
    weights = file_of(downloaded, "download:vae_decoder", "weights.safetensors")
    whole = weights.read_bytes()
    rot(weights)

    printed = sdbuild(downloaded, "verify", status=1)

    assert "in download:vae_decoder" in printed
    assert "all intact" in sdbuild(downloaded, "verify")
    assert downloaded.ran("download:vae_decoder") == set()  # nobody needs its content yet
    Store(downloaded.cache).forget(only(downloaded, "download:vae_decoder").key)
    assert downloaded.ran("download:vae_decoder") == {"download:vae_decoder"}
    assert weights.read_bytes() == whole


@pytest.mark.slow
def test_after_gc_only_what_is_asked_for_is_made_again(downloaded):
    sdbuild(downloaded, "gc", "--yes")
    assert not list(Store(downloaded.cache).objects())

    assert downloaded.ran("download") == set()
    downloaded.doit("trace:vae_decoder", "lower=here")

    kept = Store(downloaded.cache)
    assert kept.has_content(only(downloaded, "download:vae_decoder"))
    assert not kept.has_content(only(downloaded, "download:unet"))


def test_two_builds_at_once_both_end_well(tmp_path):
    project = Project(tmp_path)
    command = [sys.executable, "-m", "doit", *project.command("download")]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    printed = [process.communicate()[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0], printed
    assert "all intact" in sdbuild(project, "verify")
    assert len(list(Store(project.cache).records())) == 5


def test_two_builders_that_need_the_same_step_run_it_once(tmp_path, monkeypatch):
    ran = []
    real = build.run_step

    def counted(kind, job, work, watch, **how):
        ran.append(kind)
        return real(kind, job, work, watch, **how)
    monkeypatch.setattr(build, "run_step", counted)

    def make(found):
        builder = build.Builder(plan(load({})), Store(tmp_path / "cache"))
        found.append(builder.make("download:resources"))

    made = []
    threads = [threading.Thread(target=make, args=(made,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ran == ["download"]
    assert made[0] == made[1]


def _collect_all_the_time(cache, until):
    while not until.is_set():
        subprocess.run([sys.executable, "-m", "sdbuild", "gc", "--yes", "--cache", str(cache)],
                       cwd=ROOT, capture_output=True, check=False)
        time.sleep(0.05)


@pytest.mark.slow
def test_a_collector_that_never_rests_takes_nothing_from_a_build(tmp_path):
    """trace needs what download made: both are in one build, and so never apart."""
    project = Project(tmp_path)
    project.cache.mkdir()
    until = multiprocessing.get_context("spawn").Event()
    collector = multiprocessing.get_context("spawn").Process(
        target=_collect_all_the_time, args=(project.cache, until))
    collector.start()
    try:
        ran = project.doit("trace:vae_decoder", "lower=here").count("\n.  ")
    finally:
        until.set()
        collector.join()

    assert ran <= 2
    assert {r.step for r in Store(project.cache).records()} == {
        "download:vae_decoder", "trace:vae_decoder"}


def test_a_killed_build_leaves_no_lock_that_holds_the_next_one_up(tmp_path):
    project = Project(tmp_path)
    process = subprocess.Popen([sys.executable, "-m", "doit", *project.command("download")],
                               cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    locks = project.cache / "locks" / "store"
    while not locks.exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()

    project.doit("download")

    assert "all intact" in sdbuild(project, "verify")


def test_rot_in_the_pool_never_reaches_a_bundle(own_project):
    project = own_project
    project.doit("build")
    whole = (project.bundle / "VAEDecoder.mlmodelc" / "weights" / "weight.bin").read_bytes()
    shutil.rmtree(project.bundle)
    rot(file_of(project, "compile:vae_decoder", "VAEDecoder.mlmodelc/weights/weight.bin"))

    project.doit("build")

    assert (project.bundle / "VAEDecoder.mlmodelc" / "weights" / "weight.bin").read_bytes() == whole


WEIGHT = "VAEDecoder.mlmodelc/weights/weight.bin"


def lines_of(printed, step):
    return [re.sub(r"\s+", " ", line).strip() for line in printed.splitlines()
            if re.match(rf"\s*{step}\s", line)]


def test_rot_that_a_build_finds_is_reported_with_what_is_made_again_for_it(own_project):
    """Only a read shows it, as a build does and `why` does not."""
    path = file_of(own_project, "compile:vae_decoder", WEIGHT)
    rot(path)
    found, expected = xxhash.xxh3_128_hexdigest(path.read_bytes())[:8], path.name[:8]

    printed = own_project.doit("build")

    why = f"runs again: {WEIGHT} is damaged: digest {found}, expected {expected}"
    assert lines_of(printed, "compile:vae_decoder") == [f"compile:vae_decoder {why}"]
    assert lines_of(printed, "bundle") == [f"bundle {why}"]
    after = own_project.doit("build")
    assert "runs again" not in after
    again = printed.count("runs again: ")
    assert again >= 2
    assert up_to_date(printed) == up_to_date(after) - again


def up_to_date(printed):
    return int(re.search(r"(\d+) steps up to date", printed)[1])


def test_an_edit_in_the_store_is_reported_before_the_build_as_in_it(own_project):
    path = file_of(own_project, "compile:vae_decoder", WEIGHT)
    size = path.stat().st_size
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-10])

    reasons = own_project.why("build")
    printed = own_project.doit("build")

    flaw = f"{WEIGHT} is damaged: {size - 10} bytes, expected {size}"
    assert reasons["compile:vae_decoder"].startswith(f"would run: {flaw}  [")
    assert reasons["bundle"].startswith(f"would run: {flaw}  [")
    assert "weight.bin is damaged" in reasons["convert:vae_decoder"]  # it is the same file
    assert reasons["lower:vae_decoder"] == "up to date"
    assert lines_of(printed, "compile:vae_decoder") == [f"compile:vae_decoder runs again: {flaw}"]
    assert set(own_project.why("build").values()) == {"up to date"}


def test_a_damaged_record_is_why_its_step_runs_and_not_what_another_variant_had(own_project):
    record = only(own_project, "compile:vae_decoder")
    (own_project.cache / "records" / record.key[:2] / f"{record.key}.json").write_text("{")

    reasons = own_project.why("build")
    printed = own_project.doit("build")

    assert reasons["compile:vae_decoder"].startswith("would run: its record is damaged  [")
    assert "compile:vae_decoder runs again: its record is damaged" in lines_of(
        printed, "compile:vae_decoder")


def test_what_was_collected_is_why_a_step_runs_where_another_needs_it(project):
    project.doit("build")
    store = Store(project.cache)
    for step in ("convert:vae_encoder", "convert:vae_decoder"):
        store.evict(entry.digest for entry in only(project, step).tree
                      if entry.path.endswith(".mlmodel"))
    store.forget(only(project, "compile:vae_encoder").key)

    reasons = project.why("build")

    model = "VAEEncoder.mlpackage/Data/com.apple.CoreML/model.mlmodel"
    assert reasons["convert:vae_encoder"].startswith(
        f"would run: {model} is not in the store  [")
    assert reasons["convert:vae_decoder"] == "up to date"  # nobody needs it
    assert reasons["compile:vae_encoder"].startswith("would run: ")


def test_gc_keeps_a_bundle_in_place_and_frees_the_other_variant(project):
    project.doit("build", "quant=4")
    project.doit("build")  # into the same place: the first is in no place any more

    printed = sdbuild(project, "gc")
    found = json.loads(sdbuild(project, "gc", "--yes", "--json"))

    assert "tiny-emoji-128x128-original-4bit-2chunks-iOS16" in printed
    assert found["freed_bytes"] > 0
    assert project.ran("build") == set()
    assert json.loads(sdbuild(project, "gc", "--json"))["files"] == 0
    assert "all intact" in sdbuild(project, "verify")


def test_du_keeps_bundles_of_one_recipe_from_two_checkpoints_apart(project, own_checkpoint):
    merges = own_checkpoint / "tokenizer" / "merges.txt"
    merges.write_text(merges.read_text() + "zz zz\n")
    project.doit("build", "model=tiny-emoji", f"source={own_checkpoint}")
    place = settings({"model": "tiny-emoji", "source": str(own_checkpoint)}).bundle

    found = json.loads(sdbuild(project, "du", "--json"))

    alone = {row["name"]: row["own_bytes"] for row in found["tables"]["variant"]}
    assert place.name.startswith("tiny-emoji-checkpoint-128x128-")
    assert place.name != "tiny-emoji-checkpoint-128x128-original-6bit-2chunks-iOS16"
    assert alone[place.name] >= merges.stat().st_size
    assert "tiny-emoji-128x128-original-6bit-2chunks-iOS16" in alone
    assert [bundle["variant"] for bundle in found["bundles"]] == [place.name]
    assert "1 artifact\n" in sdbuild(project, "find", "facts.variant=tiny-emoji-checkpoint-*")


def test_a_component_is_relinked_and_nothing_else(project, tmp_path):
    project.doit("build")
    four = tmp_path / "four"
    project.doit("build", "quant=4", bundle=four)
    before = {p.relative_to(project.bundle): p.read_bytes()
              for p in project.bundle.rglob("*") if p.is_file()}

    run([sys.executable, "-m", "sdbuild", "relink", str(project.bundle), "unet", "quant=4",
         f"cache={project.cache}"], 0)

    for path, content in before.items():
        wanted = (four / path).read_bytes() if path.parts[0].startswith("Unet") else content
        if path.name != "manifest.json" or len(path.parts) > 1:
            assert (project.bundle / path).read_bytes() == wanted, path
    manifest = json.loads((project.bundle / "manifest.json").read_text())
    old = json.loads(before[next(p for p in before if str(p) == "manifest.json")])
    assert manifest["components"]["unet"]["nbits"] == 4
    assert manifest["components"]["text_encoder"] == old["components"]["text_encoder"]
    assert {k for k in manifest if manifest[k] != old[k]} == {"components", "files", "made_from"}
    steps = {entry["step"]: entry for entry in manifest["made_from"]}
    assert steps["palettize:unet"]["params"] == {"nbits": 4}
    assert steps["palettize:text_encoder"]["params"] == {"nbits": 6}
    assert [e["step"] for e in manifest["made_from"]] == [e["step"] for e in old["made_from"]]
    sdbuild_contract = run([sys.executable, "-m", "sdbuild", "contract", str(project.bundle)], 0)
    assert "0 errors" in sdbuild_contract
    assert json.loads(sdbuild(project, "gc", "--json"))["kept_for"] == sorted(
        [str(project.bundle), str(four)])
    bundles = json.loads(sdbuild(project, "du", "--json"))["bundles"]
    assert [bundle["variant"] for bundle in bundles] == [
        "bundle (relinked)", "tiny-emoji-128x128-original-4bit-2chunks-iOS16"]


@pytest.mark.parametrize("words, message", [
    (["unet", "quant=8"], "compile:unet is not made yet"),
    (["unit"], 'did you mean "unet"?'),
])
def test_what_cannot_be_relinked_leaves_the_bundle_as_it_was(project, words, message):
    project.doit("build")
    before = (project.bundle / "manifest.json").read_bytes()

    printed = run([sys.executable, "-m", "sdbuild", "relink", str(project.bundle), *words,
                   f"cache={project.cache}"], 1)

    assert message in printed
    assert (project.bundle / "manifest.json").read_bytes() == before


@pytest.mark.slow
def test_a_component_that_breaks_the_contract_is_not_relinked(project):
    """A decoder for larger pictures than the U-Net's: hosts feed it latents of the wrong size."""
    project.doit("build")
    project.doit("compile:vae_decoder", "size=192")
    before = (project.bundle / "manifest.json").read_bytes()

    printed = run([sys.executable, "-m", "sdbuild", "relink", str(project.bundle),
                   "vae_decoder", "size=192", f"cache={project.cache}"], 1)

    assert "hosts cannot use this bundle" in printed
    assert (project.bundle / "manifest.json").read_bytes() == before
    assert project.ran("build") == set()
