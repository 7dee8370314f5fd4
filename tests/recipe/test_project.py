"""Projects: which folder, which recipes, and which of several settings counts."""

from pathlib import Path

import pytest

from sdbuild.base.errors import RecipeError
from sdbuild.recipe.project import BUILT_IN, Project
from sdbuild.recipe.recipe import load
from sdbuild.recipe.settings import settings, store_folder

RECIPE = (BUILT_IN / "tiny-emoji.toml").read_text("utf-8").replace(
    'source = "tiny-emoji"', 'source = "builtin:tiny-emoji"')


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a recipe of its own, as the current folder; none of the environment."""
    for name in ("CACHE", "RAM", "REMOTE", "BUNDLE", "OUT", "REPORT", "MODEL"):
        monkeypatch.delenv(f"SDBUILD_{name}", raising=False)
    folder = tmp_path / "project"
    (folder / "recipes").mkdir(parents=True)
    (folder / "recipes" / "mine.toml").write_text(RECIPE, "utf-8")
    monkeypatch.chdir(folder)
    return folder


def test_the_nearest_folder_above_with_recipes_is_the_project(project, monkeypatch):
    (project / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(project / "a" / "b")

    assert Project.here().root == project
    assert store_folder({}) == project / "cache"
    assert settings({"model": "mine"}).bundle.parent == project / "bundles"


def test_a_nearer_sdbuild_toml_is_the_project(project, monkeypatch):
    (project / "inner").mkdir()
    (project / "inner" / "sdbuild.toml").touch()
    monkeypatch.chdir(project / "inner")

    assert Project.here().root == project / "inner"


def test_outside_any_project_the_store_is_in_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr("sys.platform", "linux")

    found = settings({})

    assert found.cache == tmp_path / "caches" / "sdbuild"
    assert found.bundle.parent == tmp_path / "bundles"


def test_a_folder_called_recipes_without_recipes_is_no_project(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "pancakes.txt").touch()
    monkeypatch.chdir(tmp_path)

    assert Project.here().recipes == (BUILT_IN,)


def test_settings_come_from_the_command_line_the_environment_the_file_then_defaults(
    project, monkeypatch,
):
    assert store_folder({}) == project / "cache"
    (project / "sdbuild.toml").write_text('cache = "of-file"')
    assert store_folder({}) == project / "of-file"
    monkeypatch.setenv("SDBUILD_CACHE", "of-environment")
    assert store_folder({}) == project / "of-environment"
    assert store_folder({"cache": "of-words"}) == project / "of-words"


def test_paths_in_the_file_are_relative_to_it(project, monkeypatch):
    (project / "sdbuild.toml").write_text('cache = "store"\nremote = "shared"\nram = "2G"')
    (project / "below").mkdir()
    monkeypatch.chdir(project / "below")

    found = settings({"model": "mine"})

    assert (found.cache, found.remote) == (project / "store", str(project / "shared"))
    assert found.ram_bytes == 2 * 10**9


def test_the_file_names_the_default_recipe(project, monkeypatch):
    (project / "sdbuild.toml").write_text('model = "mine"')
    assert load({}).name == "mine"

    monkeypatch.setenv("SDBUILD_MODEL", "sd-1-5")
    assert load({}).name == "sd-1-5"
    assert load({"model": "sd-2-1"}).name == "sd-2-1"


def test_a_default_recipe_holds_for_no_other_checkpoint_and_a_named_one_does(
    project, monkeypatch
):
    (project / "sdbuild.toml").write_text('model = "mine"')
    source = {"source": str(BUILT_IN / "tiny-emoji")}

    assert load(source).found.startswith("defaults at 128x128")
    monkeypatch.setenv("SDBUILD_MODEL", "sd-1-5")
    assert (load(source).name, load(source).found) == ("sd-1-5", "")
    assert load(source | {"model": "mine"}).name == "mine"


def test_built_in_recipes_are_found_by_name_after_the_projects_own(project):
    [place] = load({"model": "tiny-emoji"}).sources.checkpoint.places
    assert place == str(BUILT_IN / "tiny-emoji")

    (project / "recipes" / "tiny-emoji.toml").write_text(
        RECIPE.replace('size = "128x128"', 'size = "64x64"'), "utf-8")
    own = load({"model": "tiny-emoji"})
    other = load({"model": str(BUILT_IN / "tiny-emoji.toml")})

    assert own.network.width_px == 64
    assert own.asked == {}
    assert other.asked != {}, "two bundles of one name would replace each other"


@pytest.mark.parametrize("content, message", [
    ('cahce = "x"', "unknown setting 'cahce'; did you mean \"cache\"?"),
    ("quant = 6", "unknown setting 'quant'"),
    ("cache = 6", "cache is 6, expected text"),
    ("ram = 'much'", "ram is 'much', expected an amount of memory"),
    ("cache =", "not TOML"),
    ("model = ['a']", "model is ['a'], expected text"),
])
def test_a_mistake_in_the_file_names_it(project, content, message):
    (project / "sdbuild.toml").write_text(content)

    with pytest.raises(RecipeError) as caught:
        settings({})

    assert message in str(caught.value)
    assert str(Path("project", "sdbuild.toml")) in str(caught.value)


def test_a_mistake_in_the_environment_names_the_variable(project, monkeypatch):
    monkeypatch.setenv("SDBUILD_RAM", "much")

    with pytest.raises(RecipeError, match="SDBUILD_RAM: ram is 'much'"):
        settings({})
