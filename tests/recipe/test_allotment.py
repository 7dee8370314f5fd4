"""Budgets and bit recipes: what a recipe may ask for, and what is refused."""

import json
from pathlib import Path

import pytest

from sdbuild.base.errors import RecipeError
from sdbuild.recipe import json_schema
from sdbuild.recipe.recipe import load
from sdbuild.recipe.text import text_of

BITS = {"schema": 1, "components": {"unet": {"conv_in.weight": 8, "conv_out.weight": 6}}}


def budgets(words):
    recipe = load(words)
    return {c.name: recipe.packaging.budget_of(c) for c in recipe.components
            if recipe.packaging.nbits_of(c)}


@pytest.fixture
def bits(tmp_path):
    """Writes a bit recipe."""
    def write(content):
        path = tmp_path / "bits.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        return str(path)

    return write


def test_a_point_makes_bits_an_average():
    assert budgets({"quant": "4"}) == {"text_encoder": None, "unet": None}
    assert budgets({"quant": "4.0"}) == {
        "text_encoder": {"average_bits": 4.0}, "unet": {"average_bits": 4.0}}


def test_a_size_and_a_quality_are_of_the_u_net_alone():
    assert budgets({"size_mb": "1.5"}) == {
        "text_encoder": None, "unet": {"size_bytes": 1_500_000}}
    assert budgets({"quality": "40dB", "quant": "4.5"}) == {
        "text_encoder": {"average_bits": 4.5}, "unet": {"quality_db": 40.0}}


def test_names_tell_averages_from_equal_bits_and_budgets_from_each_other():
    names = [load(words).variant for words in (
        {"quant": "4"}, {"quant": "4.0"}, {"quant": "4.5"}, {"size_mb": "2"}, {"quality": "40"})]

    assert len(set(names)) == len(names)
    assert "-4bit-" in names[0]
    assert "-4.0bit-" in names[1]


@pytest.mark.parametrize("words", [{}, {"quant": "none"}, {"quant": "4.0"}])
def test_a_name_tells_no_number_of_bits_where_a_file_says_them(bits, words):
    name = load({"bits": bits(BITS), **words}).variant

    assert "-128x128-original-bits-2chunks-iOS16-" in name
    assert "bit-" not in name


def test_a_name_tells_the_bits_of_components_that_a_file_leaves_out(bits):
    assert "-6bit-" in load({"bits": bits(BITS), "palettize": "text_encoder"}).variant


def test_a_bit_recipe_is_read_from_a_file_or_a_manifest(bits):
    wanted = {"unet": {"bits": BITS["components"]["unet"]}, "text_encoder": None}

    assert budgets({"bits": bits(BITS)}) == wanted
    assert budgets({"bits": bits({"components": {"unet": {}}, "bits": BITS})}) == wanted


@pytest.mark.parametrize(("number", "meant"), [("3", "3.0"), ("4.5", "4.5"), ("8", "8.0")])
def test_a_number_of_bits_is_answered_with_the_word_for_it(number, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(RecipeError) as refused:
        load({"bits": number})

    assert refused.value.message == f"{tmp_path / number}: no such file"
    assert f"quant={meant} gives weights {number} bits on average" in refused.value.hint
    assert float(load({"quant": meant}).packaging.allotment.average_bits) == float(number)


def test_a_bit_recipe_may_be_called_a_number(bits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "3").write_bytes(Path(bits(BITS)).read_bytes())

    assert budgets({"bits": "3"}) == budgets({"bits": bits(BITS)})


ANALYSIS = {"model_version": "a/b", "single_layer": {}, "cumulative": {}, "baselines": {},
            "recipes": {"recipe_4.50_bit_mixedpalette": {"conv_in": 8, "mid_block.proj": 16},
                        "recipe_2.81_bit_mixedpalette": {"conv_in": 4, "mid_block.proj": 2}}}
"""As Apple's `mixed_bit_compression_pre_analysis` writes it."""


def test_a_recipe_of_apples_analysis_is_taken_by_its_name(bits):
    assert budgets({"bits": bits(ANALYSIS) + ":recipe_4.50_bit_mixedpalette"})["unet"] == {
        "bits": {"conv_in.weight": 8, "mid_block.proj.weight": 16, "*": 16}}

    (name, _), *_ = ANALYSIS["recipes"].items()
    alone = ANALYSIS | {"recipes": {name: {"conv_in": 6}}}
    assert budgets({"bits": bits(alone)})["unet"] == {"bits": {"conv_in.weight": 6, "*": 16}}


def test_two_recipes_of_one_analysis_are_two_variants(bits):
    file = bits(ANALYSIS)

    assert len({load({"bits": f"{file}:{name}"}).variant for name in ANALYSIS["recipes"]}) == 2


@pytest.mark.parametrize(("name", "said"), [
    ("", "2 recipes, expected the name of one\n\nhint: bits=FILE:NAME, where NAME is one of: "
         "recipe_4.50_bit_mixedpalette, recipe_2.81"),
    (":recipe_4.5_bit_mixedpalette", 'did you mean "recipe_4.50_bit_mixedpalette"?'),
    (":", "2 recipes, expected the name of one"),
])
def test_which_recipe_of_an_analysis_is_said_by_its_name(bits, name, said):
    with pytest.raises(RecipeError) as refused:
        load({"bits": bits(ANALYSIS) + name})

    assert said in str(refused.value)


def test_a_bit_recipe_needs_no_prompts_unless_tables_are_calibrated(bits):
    assert load({"bits": bits(BITS)}).calibration == ()
    assert len(load({"bits": bits(BITS), "quant": "4.0"}).calibration) >= 32


@pytest.mark.parametrize(("content", "said"), [
    ({"schema": 2, "components": {}}, "schema is 2, expected an integer from 1 to 1"),
    ({"schema": 1, "components": {"unet": {"a": 5}}}, "5, expected one of 1, 2, 3, 4, 6, 8, 16"),
    ({"recipes": {"a": {"conv_in": 5}}}, "conv_in is 5, expected one of"),
    ({"recipes": {"a": {"conv_in": {"nbits": 4}}}}, "expected an integer"),
    ({"recipes": [{"conv_in": 4}]}, "expected an object"),
    ({"recipes": {}}, "0 recipes, expected the name of one"),
    ({"schema": 1, "components": {"unet": {"a": "4"}}}, "expected an integer"),
    ({"schema": 1, "components": {"unet": [4]}}, "expected an object"),
    ("[1, 2]", "a list, expected a JSON object"),
    ("{", "bits.json"),
])
def test_what_is_no_bit_recipe_is_refused(bits, content, said):
    with pytest.raises(RecipeError, match=r"bits\.json") as refused:
        load({"bits": bits(content)})

    assert said in str(refused.value)


@pytest.mark.parametrize(("words", "said"), [
    ({"quant": "9.5"}, "1.0 to 8.0 bits on average"),
    ({"quant": "0.5"}, "1.0 to 8.0 bits on average"),
    ({"quant": "4."}, None),
    ({"quant": "nan.0"}, "1.0 to 8.0 bits on average"),
    ({"quality": "loud"}, "a number from 0 to 120"),
    ({"size_mb": "-1"}, "a number from 1 to"),
    ({"size_mb": "2", "quality": "40"}, "size_mb and quality: expected one of them"),
    ({"quant": "4.0", "size": "128,192", "target": "iOS18"}, "quant=4 with 2 sizes"),
    ({"quant": "4.0", "lower": "direct"}, "quant=4 with lower=direct"),
    ({"quant": "4.0", "palettize": "unet,vae_decoder"}, "vae_decoder cannot be calibrated"),
    ({"quant": "4.0", "calibrate": "no-such-file.txt"}, "no-such-file.txt: no such file"),
])
def test_what_cannot_be_allotted_is_refused(words, said):
    if said is None:
        assert load(words).packaging.allotment.average_bits == 4.0
        return
    with pytest.raises(RecipeError) as refused:
        load(words)

    assert said in f"{refused.value}"


def test_prompts_are_lines_each_once(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\ufeffa cat\n\n  a dog \na cat\n", "utf-8")

    recipe = load({"quant": "4.0", "calibrate": str(path)})

    assert recipe.calibration == ("a cat", "a dog")
    path.write_text("\n", "utf-8")
    with pytest.raises(RecipeError, match="0 prompts, expected 1 to 1024"):
        load({"quant": "4.0", "calibrate": str(path)})


def test_calibration_and_evaluation_have_no_prompt_in_common():
    from sdbuild.recipe.project import BUILT_IN

    for folder in ("prompts", "tiny-emoji"):
        lists = [(BUILT_IN / folder / f"{name}.txt").read_text("utf-8").splitlines()
                 for name in ("calibration", "evaluation")]
        assert min(map(len, lists)) >= 32
        assert not set(lists[0]) & set(lists[1])


def test_editors_accept_averages():
    import jsonschema

    schema = json_schema.recipe()["properties"]["quant"]
    for value in (4, 4.5, "5.0", "none"):
        jsonschema.validate(value, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(5, schema)


@pytest.mark.parametrize("is_of_file", [False, True])
def test_the_text_of_a_recipe_reads_the_same_files_in_another_folder(
        tmp_path, monkeypatch, is_of_file):
    work, other = tmp_path / "work", tmp_path / "other"
    work.mkdir()
    other.mkdir()
    (work / "bits.json").write_text(json.dumps(BITS), "utf-8")
    (work / "prompts.txt").write_text("a fox\na car\n", "utf-8")
    given = {"bits": "bits.json", "calibrate": "prompts.txt"}
    monkeypatch.chdir(work)
    words = {"model": "tiny-emoji", "quant": "4.0", **given}
    if is_of_file:
        own = "".join(f'{name} = "{value}"\n' for name, value in given.items())
        (work / "own.toml").write_text(
            f'family = "sd"\nsource = "builtin:tiny-emoji"\nsize = "128x128"\n'
            f'components = ["text_encoder", "unet"]\nquant = 4.0\n{own}', "utf-8")
        words = {"model": str(work / "own.toml")}
        monkeypatch.chdir(other)
    wanted = load(words)

    (other / "moved.toml").write_text(text_of(wanted, words), "utf-8")
    found = load({"model": str(other / "moved.toml")})

    assert found.packaging.allotment == wanted.packaging.allotment
    assert found.calibration == wanted.calibration == ("a fox", "a car")
    for line in ('bits = "bits.json"', 'calibrate = "prompts.txt"'):
        assert line in text_of(wanted, words, is_public=True).splitlines()


def test_the_text_for_others_names_the_prompts_that_come_with_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a project that has recipes of these names would have its own
    words = {"model": "tiny-emoji", "quant": "4.0"}
    wanted = load(words)

    (tmp_path / "moved.toml").write_text(text_of(wanted, words, is_public=True), "utf-8")

    assert load({"model": str(tmp_path / "moved.toml")}).calibration == wanted.calibration
