"""Two machines build the real thing with a shared store between them; what goes over is counted."""

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata

import pytest

from sdbuild.store import SHIPPED, Store
from tests.e2e.project import ROOT, Project, run

XCRUN = f"""#!{sys.executable}
import sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from sdbuild.mil.compile.compile import compile_package
match sys.argv[1:]:
    case ["coremlcompiler", "version"]:
        print("3600.1.2")
    case ["coremlcompiler", "compile", source, folder]:
        compile_package(Path(source), Path(folder) / (Path(source).stem + ".mlmodelc"))
    case other:
        sys.exit(f"unexpected: {{other}}")
"""


def pushed(project, url, **words):
    words = {"cache": project.cache, "remote": url} | words
    command = [sys.executable, "-m", "sdbuild", "push", "build",
               *(f"{name}={value}" for name, value in words.items()), "--json"]
    return {s["step"]: s["state"] for s in json.loads(run(command, 0))["steps"]}


def output(words):
    """Returns the standard output of a command of sdbuild."""
    done = subprocess.run([sys.executable, "-m", "sdbuild", *words], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def records(project):
    return {record.step: record for record in Store(project.cache).records()}


def another_build_of_torch(folder):
    """Installs the metadata of the same torch as it is built for another system; its version."""
    own = metadata.version("torch")
    version = own.partition("+")[0] if "+" in own else f"{own}+cpu"
    place = folder / f"torch-{version}.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Name: torch\nVersion: {version}\n")
    return version


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes()
            for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def second(tmp_path):
    (tmp_path / "second").mkdir()
    return Project(tmp_path / "second")


def test_a_fresh_machine_fetches_the_records_and_the_bundles_bytes_and_runs_nothing(
    project, second, s3,
):
    states = pushed(project, s3.url)
    assert {state for step, state in states.items() if not step.startswith("trace:")} == {"shared"}
    project.doit("build")
    s3.wire.forget()

    assert second.ran("build", remote=s3.url) == set()

    assert files(project.bundle) == files(second.bundle)
    made = records(second)
    asked = [path.removeprefix(f"/shared/{s3.folder}/") for path in s3.wire.paths("GET")]
    assert len(asked) == len(set(asked))
    wanted = {f"objects/{e.digest[:2]}/{e.digest}": e.size_bytes for e in made["bundle"].tree}
    names = {f"records/{r.key[:2]}/{r.key}.json" for r in made.values() if r.origin != SHIPPED}
    assert set(asked) == wanted.keys() | names | {"sdbuild-shared.json"}
    assert s3.wire.paths("PUT", "POST") == []
    headers = 1000 * len(asked)
    sizes = sum(wanted.values()) + sum(s3.names()[name] for name in sorted(names))
    sizes += s3.names()["sdbuild-shared.json"]
    assert sizes <= s3.wire.received <= sizes + headers
    checkpoint_bytes = sum(r.size_bytes for s, r in made.items() if s.startswith("download:"))
    print(f"\nreceived {s3.wire.received}, bundle {sum(wanted.values())}, "
          f"checkpoint {checkpoint_bytes}, there {sum(s3.names().values())}")


def test_a_locked_recipe_needs_no_checkpoint_where_the_bundle_is_shared(
    project, second, own_checkpoint, tmp_path, s3,
):
    recipe = tmp_path / "locked.toml"
    text = (ROOT / "recipes" / "tiny-emoji.toml").read_text()
    recipe.write_text(text.replace('source = "tiny-emoji"', f'source = "{own_checkpoint}"'))
    run([sys.executable, "-m", "sdbuild", "lock", str(recipe), f"cache={project.cache}"], 0)
    project.doit("build", model=recipe, remote=s3.url)
    pushed(project, s3.url, model=recipe)
    shutil.rmtree(own_checkpoint)

    assert second.ran("build", model=recipe, remote=s3.url) == set()

    assert files(project.bundle) == files(second.bundle)


def test_linux_makes_all_but_the_compiled_models_and_a_mac_finishes(
    project, second, tmp_path, monkeypatch,
):
    shared = tmp_path / "shared"
    pushed(project, shared)
    version = another_build_of_torch(tmp_path / "packages")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"), prepend=os.pathsep)
    assert f" {version} " in run([sys.executable, "-m", "sdbuild", "doctor"], 0)
    (tmp_path / "bin").mkdir()
    xcrun = tmp_path / "bin" / "xcrun"
    xcrun.write_text(XCRUN)
    xcrun.chmod(0o755)
    monkeypatch.setenv("PATH", str(xcrun.parent), prepend=":")

    ran = second.ran("build", "compiler=apple", remote=shared)

    parts = ("text_encoder", "unet", "vae_decoder", "vae_encoder")
    assert ran == {"bundle", *(f"compile:{part}" for part in parts)}
    manifest = json.loads((second.bundle / "manifest.json").read_text())
    assert manifest["compiler"] == "apple"
    made, linux = manifest["made_from"], records(project)
    assert {part["step"] for part in made} == linux.keys() - {"bundle"}
    for part in made:
        if part["step"].startswith("compile:"):
            assert part["tools"]["coremlcompiler"] == "3600.1.2"
            assert part["params"]["compiler"] == "apple"
        else:
            assert part["key"] == linux[part["step"]].key
    fetched = {step for step, record in records(second).items()
               if record.part("weights.safetensors") and Store(second.cache).has_content(record)}
    assert fetched == set()  # no checkpoint goes to the Mac
    project.doit("build", "compiler=apple", remote=shared)
    assert files(second.bundle) == files(project.bundle)


def test_steps_are_shared_as_they_are_made_and_a_broken_store_ends_no_build(
    new_project, second, s3, monkeypatch,
):
    first = new_project.ran("download:vae_decoder", remote=s3.url)
    assert len(s3.names("records")) == len(first) == 1
    for name in s3.names():
        s3.write(name, s3.read(name)[:-1])

    printed = second.doit("download:vae_decoder", remote=s3.url)

    assert ".  download:vae_decoder" in printed
    assert printed.count("remote s3://") == 1
    third = Project(second.folder / "third")
    assert third.ran("download:vae_decoder", remote=s3.url) == set()  # the second has mended it


def test_steps_in_several_processes_share_as_one(new_project, second, s3):
    ran = new_project.ran("-n", "2", "download", remote=s3.url)

    assert len(s3.names("records")) == len(ran) == 5
    assert second.ran("-n", "2", "download", remote=s3.url) == set()


def test_an_unreachable_store_is_reported_once_with_steps_in_several_processes(
    new_project, monkeypatch, s3,
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")

    printed = new_project.doit("-n", "2", "download", remote=s3.url)

    assert printed.count("going on without it") == 1


def test_no_credentials_are_shown_by_a_build_or_left_in_its_store(new_project):
    url = "http://me:hunter22@127.0.0.1:1/store?token=tok3n"

    printed = new_project.doit("download:resources", remote=url)

    assert "remote http://127.0.0.1:1/store?token=…: " in printed
    kept = b"".join(files(new_project.folder).values())
    for secret in ("hunter22", "tok3n"):
        assert secret not in printed
        assert secret.encode() not in kept


def test_a_colleagues_local_store_is_refused_before_any_step(new_project, second):
    new_project.doit("download:resources")
    before = files(new_project.cache)

    printed = second.doit("download:resources", remote=new_project.cache, status=2)

    assert "expected a shared store or an empty folder; nothing was written" in printed
    assert ".  download" not in printed
    assert files(new_project.cache) == before


def test_the_own_local_store_and_an_empty_secret_are_refused_at_once(new_project, monkeypatch):
    assert "is in the local store" in new_project.doit(
        "download:resources", remote=new_project.cache, status=2)
    monkeypatch.setenv("SDBUILD_REMOTE_SECRET", "")
    assert "SDBUILD_REMOTE_SECRET is empty" in new_project.doit("download:resources", status=2)


@pytest.mark.parametrize(("url", "message"), [
    ("gs://bucket/x", "the package gcsfs is not installed.\n\nhint: pip install gcsfs"),
    ("s5://me:hunter22@bucket/x", "ERROR: remote=s5://bucket/x: unknown scheme 's5'"),
])
def test_a_store_that_cannot_be_named_so_is_refused_at_once(new_project, url, message):
    printed = new_project.doit("build", remote=url, status=2)

    assert message in printed
    assert "hunter22" not in printed


def test_another_machines_component_is_relinked(project, second, tmp_path):
    shared = tmp_path / "shared"
    pushed(project, shared)
    pushed(project, shared, quant="none", chunk="1")
    project.doit("build", "quant=none", "chunk=1")
    second.doit("build", remote=shared)

    printed = json.loads(output([
        "relink", second.bundle, "unet", "quant=none", "chunk=1", f"cache={second.cache}",
        f"remote={shared}", "--json"]))

    assert printed["artifact"]["step"] == "relink:unet"
    for name, content in files(project.bundle / "Unet.mlmodelc").items():
        assert (second.bundle / "Unet.mlmodelc" / name).read_bytes() == content


def test_the_way_of_a_weight_is_followed_through_what_another_machine_made(
    project, second, tmp_path
):
    shared = tmp_path / "shared"
    pushed(project, shared)
    words = ["weight", "tiny-emoji", "unet", "conv_in.weight"]
    here = json.loads(output([*words, f"cache={project.cache}", "--json"]))

    there = json.loads(output(
        [*words, f"cache={second.cache}", f"remote={shared}", "--json"]))

    assert here == there
    assert "bundle" in {stop["step"] for stop in there["stops"]}


def test_a_weight_whose_package_is_in_no_store_is_followed_no_further(project, second, tmp_path):
    """As on a machine that fetched a bundle, and no longer reaches the shared store."""
    shared = tmp_path / "shared"
    pushed(project, shared)
    second.doit("build", remote=shared)

    printed = output(["weight", "tiny-emoji", "unet", "conv_in.weight", f"cache={second.cache}"])

    *_, last = printed.splitlines()
    assert last.split(maxsplit=1) == [
        "convert:unet", "made, but its files are not in the store; to make them again: "
                        "sdbuild forget convert:unet, then sdbuild build convert:unet"]
