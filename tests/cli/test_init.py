"""`sdbuild init`: a project that works as it is, also from an installed wheel."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from sdbuild.cli.main import main
from sdbuild.recipe.recipe import load
from tests.test_workflows import BIN, ROOT, run


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A new project, as the current folder."""
    monkeypatch.delenv("SDBUILD_MODEL", raising=False)
    folder = tmp_path / "project"
    assert main(["init", str(folder), "--name", "mine"]) == 0
    monkeypatch.chdir(folder)
    return folder


def test_a_new_projects_recipe_is_the_default_and_reads_the_built_in_checkpoint(project):
    recipe = load({})

    assert recipe.name == "mine"
    assert (Path(recipe.source.places[0]) / "model_index.json").is_file()
    assert tomllib.loads((project / "sdbuild.toml").read_text()) == {"model": "mine"}


def test_init_never_overwrites(project, capsys):
    (project / "sdbuild.toml").write_text("# my own")
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    capsys.readouterr()

    assert main(["init", "--name", "mine"]) == 0

    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before
    assert "created" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["../out", "a/b", "", "-x y", ".hidden"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path, name, capsys):
    assert main(["init", str(tmp_path / "p"), f"--name={name}"]) == 2

    assert not (tmp_path / "p").exists()
    assert "expected letters, digits" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_told(tmp_path, capsys):
    (tmp_path / "file").touch()

    assert main(["init", str(tmp_path / "file" / "p")]) != 0
    assert "ERROR: " in capsys.readouterr().err


def test_a_new_projects_dodo_lists_the_tasks_for_doit(project):
    done = subprocess.run([sys.executable, "-m", "doit", "list"], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})

    assert done.returncode == 0, done.stderr
    assert "generate" in done.stdout


def test_a_new_projects_workflow_is_sound(project):
    workflow = project / ".github" / "workflows" / "build.yml"

    form = run(BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", workflow)
    assert form.returncode == 0, form.stdout
    lint = run(BIN / "zizmor", "--offline", "--no-progress", "--min-severity=low", workflow)
    assert lint.returncode == 0, lint.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of this tree, built without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                           cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if name.startswith(("sdbuild/", "recipes/")) or "/" not in name:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    done = run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps",
               "--no-build-isolation", "--wheel-dir", folder, source)
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.mark.slow
def test_the_wheel_holds_every_recipe_and_template_and_no_link(wheel):
    with zipfile.ZipFile(wheel) as opened:
        entries = opened.infolist()

    names = {entry.filename for entry in entries}
    recipes = {path.relative_to(ROOT / "recipes").as_posix()
               for path in (ROOT / "recipes").rglob("*") if path.is_file()}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "sdbuild").rglob("*")
               if path.is_file() and "__pycache__" not in path.parts}
    assert {f"sdbuild/builtin/{name}" for name in recipes} | modules <= names
    assert not any(entry.external_attr >> 28 == 0o12 for entry in entries)


@pytest.mark.slow
def test_from_a_wheel_init_build_and_generate_make_a_picture_in_an_empty_folder(wheel, tmp_path):
    installed = run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target",
                    tmp_path / "site", wheel)
    assert installed.returncode == 0, installed.stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith("SDBUILD_")} | {"PYTHONPATH": str(tmp_path / "site")}

    def sdbuild(*words):
        done = run(sys.executable, "-P", "-m", "sdbuild", *words, cwd=empty, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    sdbuild("init")
    assert str(tmp_path / "site") in sdbuild("recipes")
    sdbuild("build", "-n", "2")
    (picture,) = sdbuild("generate", "--steps", "4").splitlines()[-1:]

    with Image.open(empty / picture) as image:
        assert image.size == (128, 128)
    assert "up to date" in sdbuild("build")
