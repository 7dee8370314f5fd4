"""Matrices and catalogues: which bundles they stand for, and what is said of mistakes."""

import pytest

from sdbuild.base.errors import RecipeError, SourceError
from sdbuild.recipe.catalogue import Asked, variants
from sdbuild.recipe.matrix import MOST_VARIANTS
from sdbuild.recipe.project import Project

RECIPE = """
family = "sd"
source = "builtin:tiny-emoji"
size = 128
components = ["text_encoder", "unet", "vae_decoder"]
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with the recipes `one`, which has a matrix of six without one, and `plain`."""
    (tmp_path / "recipes").mkdir()
    monkeypatch.chdir(tmp_path)
    write = (tmp_path / "recipes" / "plain.toml").write_text
    write(RECIPE)
    (tmp_path / "recipes" / "one.toml").write_text(RECIPE + """
[matrix]
quant = [4, 6, "none"]
attention = ["original", "SPLIT_EINSUM"]
exclude = [{quant = 4, attention = "original"}]
include = [{quant = 8, chunk = 2}]
""")
    return tmp_path


def rows(*texts, only=(), **words):
    """The variants of a command line, as text without the model."""
    found = variants(words, Asked.of(texts), only)
    return [" ".join(f"{n}={v}" for n, v in each.row.items() if n != "model") for each in found]


def test_a_recipes_matrix_stands_for_all_combinations_but_those_it_excludes(project):
    assert rows("", model="one") == [
        "attention=SPLIT_EINSUM quant=4", "attention=original quant=6",
        "attention=SPLIT_EINSUM quant=6", "attention=original quant=none",
        "attention=SPLIT_EINSUM quant=none", "quant=8 chunk=2"]


def test_values_on_the_command_line_stand_in_place_of_the_recipes_list(project):
    assert rows("quant=6,8", "attention=split_einsum_v2", model="one") == [
        "attention=split_einsum_v2 quant=6", "attention=split_einsum_v2 quant=8", "quant=8 chunk=2"]


def test_a_variable_holds_for_all_variants_so_that_its_list_has_one_value(project):
    assert rows("", model="one", quant="6") == [
        "attention=original quant=6", "attention=SPLIT_EINSUM quant=6"]


def test_a_matrix_on_the_command_line_needs_none_in_the_recipe(project):
    assert rows("quant=4,6", "model=plain", chunk="2") == ["quant=4 chunk=2", "quant=6 chunk=2"]


def test_models_are_a_list_too_each_with_the_matrix_of_its_recipe(project):
    found = variants({}, Asked.of(["model=one,plain", "quant=6"]))

    assert [(each.words["model"], each.words.get("attention")) for each in found] == [
        ("one", "original"), ("one", "SPLIT_EINSUM"), ("plain", None)]


def test_only_takes_variants_by_name_and_pattern(project):
    names = [each.name for each in variants({"model": "one"}, Asked.of([""]))]

    assert rows("", only=["*-fp16-*"], model="one") == [
        "attention=original quant=none", "attention=SPLIT_EINSUM quant=none"]
    assert len(rows("", only=[names[0], names[1]], model="one")) == 2


def test_a_catalogue_names_recipes_with_variables_and_matrices_of_their_own(project):
    (project / "catalogue.toml").write_text("""
[matrix]
quant = [4, 6]
[[recipe]]
model = "plain"
[[recipe]]
model = "one"
chunk = 2
matrix = {attention = ["original", "split_einsum"]}
""")
    assert rows("") == rows("catalogue.toml") == [
        "quant=4", "quant=6", "attention=original chunk=2", "attention=split_einsum chunk=2"]
    assert rows("catalogue.toml", model="one") == [
        "attention=original chunk=2", "attention=split_einsum chunk=2"]
    assert rows("quant=8") == ["quant=8", "attention=original quant=8 chunk=2",
                               "attention=split_einsum quant=8 chunk=2"]


def test_paths_in_a_catalogue_are_relative_to_it_and_its_words_to_the_current_folder(project):
    folder = project / "catalogues"
    folder.mkdir()
    (folder / "mine.toml").write_text("""
[[recipe]]
model = "../recipes/plain.toml"
lora = "ink.safetensors:0.8"
matrix = {vae = ["a", "/elsewhere/b", "hub:owner/c"]}
""")
    found = variants({}, Asked.of(["catalogues/mine.toml"]))

    assert [each.words["vae"] for each in found] == [
        "catalogues/a", "/elsewhere/b", "hub:owner/c"]
    assert {each.words["lora"] for each in found} == {"catalogues/ink.safetensors:0.8"}
    assert found[0].recipe.sources.elsewhere["vae"].places == (str(folder / "a"),)


def test_a_checkpoint_that_cannot_be_read_fails_one_variant_alone(project):
    found = variants({}, Asked.of(["source=none-there,none-here"]))
    assert [type(each.error) for each in found] == [SourceError, SourceError]

    (project / "catalogue.toml").write_text(
        '[[recipe]]\nsource = "none-there"\n[[recipe]]\nmodel = "plain"\n')
    broken, plain = variants({}, Asked.of([""]))
    assert broken.name == "source=none-there"
    assert broken.error.hint
    assert plain.error is None


def test_equal_bits_are_another_variant_than_as_many_on_average(project):
    found = variants({}, Asked.of(["quant=4,4.0"]))

    assert [each.recipe.packaging.quant_word for each in found] == ["4bit", "4.0bit"]


MISTAKES = {
    "quant=4,5": "--matrix: quant is '5', expected one of none, 1",
    "quant=4,4": "--matrix: quant has '4' twice",
    "attention=SPLIT_EINSUM,split_einsum": "--matrix: attention has 'split_einsum' twice",
    "quant=": "--matrix: quant is '', expected one of",
    "qaunt=4": "unknown field 'qaunt'; did you mean \"quant\"?",
    "seed=1,2": "--matrix 'seed=1,2': seed is not a field that a matrix can vary",
    "lower=once,direct": "--matrix: two variants are called plain-",
    "quant=3,4": "--matrix: model=plain quant=3: quant=3 with target=iOS16",
    "none.toml": "none.toml: ",
    "a.json": "--matrix 'a.json': expected NAME=VALUE,…, or one catalogue",
    "": "--matrix: the recipe has no [matrix], and no values are given",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_a_matrix_is_refused_before_anything_runs(text, project):
    with pytest.raises(RecipeError) as raised:
        variants({"model": "plain"}, Asked.of([text]))
    assert MISTAKES[text] in raised.value.message


@pytest.mark.parametrize("texts", [["quant=4", "quant=6"], ["a.toml", "b.toml"]])
def test_a_list_is_given_once(texts, project):
    with pytest.raises(RecipeError, match=r"given twice|one catalogue"):
        Asked.of(texts)


TABLES = {
    "exclude = [{quant = 5}]": "[matrix]: exclude: quant is 5, expected one of",
    "exclude = [{quant = 8}]": "exclude: quant has no value '8'",
    "exclude = [{chunk = 2}]": "exclude: chunk has no list in this matrix",
    "exclude = [{quant = 4}, {quant = 6}]": "--matrix: every variant is excluded",
    "include = [{qaunt = 4}]": "include: unknown field 'qaunt'",
    "include = [{quant = 6}]": "two variants are called bad-",
    "chunk = [1, true]": "chunk is True, expected an integer",
    "chunk = []": "chunk is empty, expected a list of values",
    "chunk = {a = 1}": "chunk is an object, expected a list of values",
}


@pytest.mark.parametrize("line", TABLES)
def test_a_mistake_in_a_recipes_matrix_says_where_it_stands(line, project):
    path = project / "recipes" / "bad.toml"
    path.write_text(f"{RECIPE}[matrix]\nquant = [4, 6]\n{line}\n")

    with pytest.raises(RecipeError) as raised:
        variants({"model": "bad"}, Asked.of([""]))
    assert TABLES[line] in raised.value.message
    assert raised.value.hint


def test_a_matrix_too_large_to_build_is_refused_without_making_its_variants(project):
    sides = ", ".join(str(side) for side in range(64, 2049, 8))
    (project / "recipes" / "huge.toml").write_text(
        f"{RECIPE}[matrix]\nsize = [{sides}]\nquant = [4, 6, 8]\nchunk = [1, 2]\n"
        'attention = ["original", "split_einsum", "split_einsum_v2"]\n'
        'target = ["iOS16", "iOS17", "iOS18"]\n')

    with pytest.raises(RecipeError, match=rf"{249 * 3 * 2 * 3 * 3:,} variants, expected at most "
                                          rf"{MOST_VARIANTS:,}"):
        variants({"model": "huge"}, Asked.of([""]))


def test_a_pattern_that_fits_nothing_and_a_model_that_is_not_there_are_said(project):
    with pytest.raises(RecipeError, match="--only '\\*5bit\\*': no such variant"):
        variants({"model": "one"}, Asked.of([""]), ["*5bit*"])
    (project / "catalogue.toml").write_text('[[recipe]]\nmodel = "plain"\n')
    with pytest.raises(RecipeError, match="no recipe of model=one") as raised:
        variants({"model": "one"}, Asked.of(["catalogue.toml"]))
    assert raised.value.hint == "its models are: plain"


def test_the_projects_catalogue_is_left_alone_where_a_recipe_is_named(project):
    (project / "catalogue.toml").write_text("not toml")
    assert Project.here().root == project

    assert len(rows("", model="one")) == 6
