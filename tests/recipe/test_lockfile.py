"""A lock is written into a recipe without touching anything else of it."""

import tomllib

import pytest

from sdbuild.base.errors import RecipeError
from sdbuild.engine.plan import plan
from sdbuild.recipe.lockfile import Lock, parsed, text, write, written
from sdbuild.recipe.recipe import load

LOCK = Lock(
    parts={"unet": {"architecture.json": "0a" * 32, "weights.safetensors": "1b" * 32},
           "resources": {"vocab.json": "2c" * 32}},
    commits={"hub:owner/name": "3d" * 20},
)
RECIPE = """\
# My fine-tune, of which I am proud.
family = "sd"
source = "hub:owner/name"   # the best
size = 64
components = ["unet"]

[draw]
steps = 20  # enough

# Measured in May.
[floors.unet]
reason = "because"
none = 5
"""


def test_a_lock_is_appended_and_everything_else_stays():
    made = written(RECIPE, LOCK)

    assert made.startswith(RECIPE)
    assert parsed(tomllib.loads(made)["lock"], "") == LOCK


def test_a_second_lock_takes_the_place_of_the_first():
    other = Lock(parts={"unet": {"weights.safetensors": "ff" * 32}}, commits={})

    assert written(written(RECIPE, other), LOCK) == written(RECIPE, LOCK)
    assert written(written(RECIPE, LOCK), LOCK) == written(RECIPE, LOCK)


def test_tables_and_comments_that_stand_after_a_lock_stay():
    before, after = RECIPE.split("# Measured")
    middle = f"{before}{text(LOCK)}\n# Measured{after}"

    made = written(middle, LOCK)

    assert tomllib.loads(made) == tomllib.loads(written(RECIPE, LOCK))
    assert "# Measured in May.\n[floors.unet]" in made
    assert made.count("[lock.unet]") == 1


def test_the_ends_of_lines_stay_as_they_are():
    made = written(RECIPE.replace("\n", "\r\n"), LOCK)

    assert made.replace("\r\n", "\n") == written(RECIPE, LOCK)
    assert "\n" not in made.replace("\r\n", "")


@pytest.mark.parametrize("lock", [
    'lock = {unet = {"weights.safetensors" = "00000000000000000000000000000000"}}\n',
    'lock.unet."weights.safetensors" = "00000000000000000000000000000000"\n',
])
def test_a_lock_in_another_form_is_left_alone(lock):
    with pytest.raises(RecipeError, match="in an unknown format"):
        written(lock + RECIPE, LOCK)


def test_text_that_only_looks_like_a_lock_is_not_taken_away():
    """A multi-line string may hold what looks like a table."""
    recipe = 'summary = """\n[lock.unet]\nx = 1\n"""\n' + RECIPE

    with pytest.raises(RecipeError, match="in an unknown format"):
        written(recipe, LOCK)


@pytest.mark.parametrize("table", [
    {"unet": 1}, {"unet": {}}, {"unet": {"weights.safetensors": 5}},
    {"unet": {"weights.safetensors": "not a digest"}}, {"commits": {"hub:owner/name": "main"}},
])
def test_a_lock_that_holds_anything_but_digests_is_refused(table):
    with pytest.raises(RecipeError, match="expected a digest for each file"):
        parsed(table, "mine.toml: [lock]")


@pytest.fixture
def locked(tmp_path):
    """The words of a recipe that is locked."""
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE)
    write(path, LOCK)
    return {"model": str(path)}


def test_a_locked_recipe_asks_its_places_at_the_locked_commits(locked):
    step = plan(load(locked)).steps["download:unet"]

    assert step.source.places == ("hub:owner/name@" + "3d" * 20,)
    assert step.locked == LOCK.parts["unet"]


def test_a_source_on_the_command_line_is_another_checkpoint_and_not_locked(locked):
    step = plan(load(locked | {"source": "hub:owner/name"})).steps["download:unet"]

    assert step.source.places == ("hub:owner/name",)
    assert step.locked == {}


def test_a_component_that_was_not_locked_is_refused(locked):
    with pytest.raises(RecipeError, match="its lock has no vae_decoder") as refused:
        plan(load(locked | {"components": "unet,vae_decoder"}))

    assert "lock RECIPE components=" in refused.value.hint


def test_a_recipe_keeps_its_mode_when_it_is_locked(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE)
    path.chmod(0o640)

    write(path, LOCK)

    assert path.stat().st_mode & 0o777 == 0o640


def test_a_lock_of_an_older_sdbuild_is_refused_with_the_way_to_write_it_anew():
    """xxh3-128 has 32 digits; the author of a file can make another with the same."""
    with pytest.raises(RecipeError, match="digests that can be forged") as refused:
        parsed({"unet": {"weights.safetensors": "1b" * 16}}, "mine.toml: [lock]")

    assert "sdbuild lock RECIPE" in refused.value.hint
