"""`sdbuild init`: a project that works as it is, also from an installed wheel."""

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
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
    assert (Path(recipe.sources.checkpoint.places[0]) / "model_index.json").is_file()
    assert tomllib.loads((project / "sdbuild.toml").read_text()) == {"model": "mine"}


def test_a_new_projects_model_is_judged_by_what_it_knows(project):
    assert load({}).check.prompts == load({"model": "tiny-emoji"}).check.prompts


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


def test_a_folder_that_cannot_be_made_is_reported(tmp_path, capsys):
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


def tracked():
    """The names of the files that git knows or would add."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in filter(None, listed.split("\0")) if (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """A source distribution of this tree, built without the network."""
    folder = tmp_path_factory.mktemp("sdist")
    for name in tracked():
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / "source" / name)
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
    done = run(sys.executable, "-c", code, cwd=folder / "source")
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.tar.gz")
    return found


@pytest.fixture(scope="module")
def wheel(sdist):
    """A wheel, built from the source distribution without the network."""
    done = run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps",
               "--no-build-isolation", "--wheel-dir", sdist.parent, sdist)
    assert done.returncode == 0, done.stderr
    (found,) = sdist.parent.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """The `bin` of a fresh environment with the wheel, which borrows the packages it depends on."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    done = run(sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install",
               "--quiet", "--no-deps", wheel)
    assert done.returncode == 0, done.stderr
    (site,) = folder.glob("lib/python*/site-packages")
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (site / "borrowed.pth").write_text("\n".join(borrowed))
    return folder / "bin"


def in_environment(*command, cwd):
    """Runs a command outside of the clone; what it printed."""
    variables = {name: value for name, value in os.environ.items()
                 if not name.startswith(("SDBUILD_", "PYTHON"))}
    done = run(*command, cwd=cwd, env=variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_source_distribution_holds_every_file(sdist):
    with tarfile.open(sdist) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}

    assert tracked() - names == set()


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
def test_the_wheel_has_the_licences_and_a_page_whose_links_lead_somewhere(wheel):
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        page = email.message_from_bytes(opened.read(name))
        licences = [name for name in opened.namelist() if ".dist-info/licenses/" in name]

    assert page["Description-Content-Type"] == "text/markdown"
    assert "# sdbuild" in page.get_payload()
    assert {target.partition(":")[0] for target in re.findall(r"\]\(([^)]*)\)", page.get_payload())
            } <= {"https"}
    assert len(licences) == 4


@pytest.mark.slow
def test_from_a_wheel_init_build_and_generate_make_a_picture_in_an_empty_folder(
    environment, tmp_path
):
    def sdbuild(*words):
        return in_environment(environment / "sdbuild", *words, cwd=tmp_path)

    sdbuild("init")
    assert str(environment.parent) in sdbuild("recipes")
    sdbuild("build", "-n", "2")
    (picture,) = sdbuild("generate", "--steps", "4").splitlines()[-1:]

    with Image.open(tmp_path / picture) as image:
        assert image.size == (128, 128)
    assert "up to date" in sdbuild("build")
    assert "generate" in in_environment(environment / "python", "-m", "doit", "list", cwd=tmp_path)


@pytest.mark.slow
def test_tests_of_the_source_distribution_pass_with_the_installed_wheel(
    environment, sdist, tmp_path
):
    with tarfile.open(sdist) as opened:
        opened.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    shutil.rmtree(source / "sdbuild")

    printed = in_environment(environment / "python", "-P", "-m", "pytest", "tests/base",
                             "tests/recipe", "-p", "no:cacheprovider", cwd=source)

    assert " passed" in printed
