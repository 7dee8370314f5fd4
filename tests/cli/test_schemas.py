"""JSON Schemas: of recipes, of sdbuild.toml, and of what every command prints."""

import json
import tomllib

import jsonschema
import pytest

from sdbuild.base.errors import RecipeError
from sdbuild.cli import output
from sdbuild.cli.main import main, names
from sdbuild.recipe import json_schema
from sdbuild.recipe.catalogue import catalogue
from sdbuild.recipe.fields import CHECK_FIELDS, DRAW_FIELDS, RECIPE_FIELDS, SETTING_FIELDS
from sdbuild.recipe.project import BUILT_IN, Project
from sdbuild.recipe.recipe import load
from tests.test_rules import PACKAGE, ROOT

TEMPLATES = PACKAGE / "cli" / "templates"
FILES = {"recipe.schema.json": json_schema.recipe, "project.schema.json": json_schema.project}
RECIPES = [*BUILT_IN.glob("*.toml"), TEMPLATES / "recipe.toml"]
WITHOUT_JSON = {"completion", "matrix", "mil", "schema", "torch2coreml", "pipeline", "chunk",
                "activation-quantization", "mixed-bit-compression-pre-analysis",
                "mixed-bit-compression-apply", "multilingual-projection"}
"""A script, GitHub's form, commands with tables of their own, JSON anyway, and flags of others."""


def problems(schema, value):
    jsonschema.Draft7Validator.check_schema(schema)
    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(value)]


@pytest.mark.parametrize("name", FILES)
def test_the_schemas_that_ship_are_those_of_the_fields(name, request):
    """After a change of a field: pytest --accept."""
    text = json.dumps(FILES[name](), indent=2, ensure_ascii=False) + "\n"
    if request.config.getoption("--accept"):
        (TEMPLATES / name).write_text(text, "utf-8")
    assert (TEMPLATES / name).read_text("utf-8") == text


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_is_valid(path):
    assert problems(json_schema.recipe(), tomllib.loads(path.read_text("utf-8"))) == []


def test_every_field_has_its_meaning():
    properties = json_schema.recipe()["properties"]
    for fields, found in ((RECIPE_FIELDS, properties),
                          (DRAW_FIELDS, properties["draw"]["properties"]),
                          (CHECK_FIELDS, properties["check"]["properties"]),
                          (SETTING_FIELDS, json_schema.project()["properties"])):
        assert {f.name: f.meaning for f in fields}.items() <= {
            name: each.get("description") for name, each in found.items()}.items()


GOOD = """
family = "sd"
source = ["hub:owner/name", "folder"]
size = "512x768"
components = ["text_encoder", "unet"]
"""


@pytest.mark.parametrize("line", [
    "", "quant = 6", 'quant = "none"', "batch = 1", "size = 512", 'attention = "SPLIT_EINSUM_V2"',
    'palettize = []', 'lora = ["a.safetensors:0.8"]', "[draw]\nsteps = 20\nguidance = 7.5",
    '[draw]\nscheduler = "DPM++ 2M Karras"', '[check]\naccepts = "broken"\nreason = "two bits"',
    '[floors.unet]\nreason = "small"\n6 = 30.5',
    '[matrix]\nquant = [4, "none"]\nexclude = [{quant = 4}]\ninclude = [{chunk = 2}]',
])
def test_what_a_recipe_may_hold_is_valid_and_loads(line, tmp_path):
    text = GOOD if not line.startswith("size") else GOOD.replace('size = "512x768"\n', "")
    path = tmp_path / "a.toml"
    path.write_text(text + line)

    assert problems(json_schema.recipe(), tomllib.loads(path.read_text())) == []
    assert load({"model": str(path)}).name == "a"


@pytest.mark.parametrize("line", [
    "qaunt = 6", "quant = 5", "quant = true", 'batch = 3', "batch = 1.5", "chunk = 0",
    'target = "iOS15"', 'attention = "flash"', "source = []", "source = 3", 'config = ""',
    "components = []", 'size = "12"', "size = 513", "[draw]\nsteps = 0", "[draw]\nsteps = 501",
    '[draw]\nguidance = "much"', "[draw]\nkarras = 3", "[draw]\nprompts = []",
    '[check]\naccepts = "broken"', '[check]\nreason = "none"', "[check]\nprompts = []",
    "[floors.unet]\n6 = 30", "[lock]\nunet = 3", 'family = "sd9"',
])
def test_what_no_recipe_may_hold_is_not_valid_and_does_not_load(line, tmp_path):
    name = line.partition(" ")[0]
    kept = [each for each in GOOD.splitlines() if not each.startswith(f"{name} ")]
    path = tmp_path / "a.toml"
    path.write_text("\n".join([*kept, line]))

    assert problems(json_schema.recipe(), tomllib.loads(path.read_text())) != []
    with pytest.raises(RecipeError):
        load({"model": str(path)})


@pytest.mark.parametrize("line", ["", 'cache = "c"', 'ram = "8G"', "ram = 8000000000",
                                  'model = "m"\nremote = "s3://bucket"', 'predictor = "portable"'])
def test_what_a_project_may_set_is_valid_and_is_read(line, tmp_path, monkeypatch):
    (tmp_path / "sdbuild.toml").write_text(line)
    monkeypatch.chdir(tmp_path)

    assert problems(json_schema.project(), tomllib.loads(line)) == []
    project = Project.here()
    assert all(project.setting(field, {}) is not None
               for field in SETTING_FIELDS if field.name in tomllib.loads(line))


@pytest.mark.parametrize("line", ['ram = "much"', "cache = 3", 'cahce = "c"', 'cache = ""',
                                  'predictor = "gpu"', 'out = "a.tiff5"'])
def test_what_no_project_may_set_is_not_valid_and_is_refused(line, tmp_path, monkeypatch):
    (tmp_path / "sdbuild.toml").write_text(line)
    monkeypatch.chdir(tmp_path)

    assert problems(json_schema.project(), tomllib.loads(line)) != []
    with pytest.raises(RecipeError):
        project = Project.here()
        for field in SETTING_FIELDS:
            project.setting(field, {})


def test_a_new_project_names_its_schemas_for_editors(tmp_path):
    """taplo reads `#:schema` in the first line, a path from the file that it stands in."""
    assert main(["init", str(tmp_path), "--name", "my"]) == 0
    for path in (tmp_path / "sdbuild.toml", tmp_path / "recipes" / "my.toml"):
        directive, _, place = path.read_text().splitlines()[0].partition(" ")
        schema = json.loads((path.parent / place).read_text("utf-8"))
        assert directive == "#:schema"
        assert problems(schema, tomllib.loads(path.read_text())) == []


def test_the_recipes_of_this_repository_have_a_schema_for_editors():
    rules = tomllib.loads((ROOT / ".taplo.toml").read_text())["rule"]
    assert all((ROOT / rule["schema"]["path"]).is_file() for rule in rules)


def test_every_command_prints_json_and_has_a_schema_of_it():
    from sdbuild.cli.main import cli

    has_json = {name for name in names() if any(
        "--json" in param.opts for param in cli.get_command(None, name).params)}
    assert has_json - {"matrix"} == set(names()) - WITHOUT_JSON == set(output.outputs())


def test_the_commands_that_take_a_matrix_have_a_schema_of_all_variants():
    from sdbuild.cli.main import cli

    takes = {name for name in names() if any(
        "--matrix" in param.opts for param in cli.get_command(None, name).params)}
    one_for_all = {"matrix", "report"}  # a list, and a page on all variants
    assert takes - one_for_all == set(output.OVER_VARIANTS)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """An empty folder with a store of one artifact."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDBUILD_CACHE", str(tmp_path / "cache"))
    assert main(["build", "download:resources"]) == 0
    return tmp_path


COMMANDS = [
    ("build download:resources", 0), ("build convert:uent", 2), ("check source=none", 1),
    ("clean -n download", 0), ("contract none", 1), ("doctor", 0), ("du", 0),
    ("export download:resources out", 0), ("find step=download:resources", 0), ("find step=x", 1),
    ("forget download:resources", 0), ("gc", 0), ("generate none", 1), ("history", 0),
    ("info bundle", 1), ("init new", 0), ("list --all", 0), ("lock tiny-emoji", 0),
    ("push remote=shared download:resources", 0), ("push", 2), ("recipes", 0), ("refresh", 0),
    ("relink none unet", 1), ("verify", 0), ("verify none", 1),
    ("weight tiny-emoji unet no.such", 1), ("why", 0),
    ("why quant=5", 2), ("why --matrix quant=4,6", 0), ("build --matrix quant=4,5", 2),
    ("build --matrix quant=4,6 download:resources", 0),
]


@pytest.mark.parametrize(("words", "status"), COMMANDS, ids=[words for words, _ in COMMANDS])
def test_what_a_command_prints_as_json_fits_its_schema(words, status, places, capsys):
    capsys.readouterr()

    found = main([*words.split(), "--json"])

    out, err = capsys.readouterr()
    printed = json.loads(out)
    assert found == status, err
    assert problems(output.schema(words.split()[0]), printed) == []
    assert ("error" in printed) == (status != 0 and words not in ("find step=x", "info bundle"))


MATRICES = ["quant = []", "quant = 4", "quant = [5]", "quant = [4, 4]", "qaunt = [4]", "seed = [1]",
            "exclude = {quant = 4}", "exclude = [{}]", "include = [{seed = 1}]", ""]


@pytest.mark.parametrize("line", MATRICES)
def test_what_no_matrix_may_hold_is_not_valid_and_is_refused(line, tmp_path):
    path = tmp_path / "catalogue.toml"
    path.write_text(f'[[recipe]]\nmodel = "tiny-emoji"\n[matrix]\n{line}\n')

    assert problems(json_schema.catalogue(), tomllib.loads(path.read_text())) != []
    with pytest.raises(RecipeError):
        catalogue(path)


@pytest.mark.parametrize("text", [
    '[[recipe]]\nmodel = "sd-1-5"', '[[recipe]]\nsource = "hub:owner/name"\nseed = 3',
    '[matrix]\nquant = [4]\n[[recipe]]\nmodel = "a.toml"\n[recipe.matrix]\nchunk = [1, 2]',
])
def test_what_a_catalogue_may_hold_is_valid_and_is_read(text, tmp_path):
    path = tmp_path / "catalogue.toml"
    path.write_text(text)

    assert problems(json_schema.catalogue(), tomllib.loads(text)) == []
    assert len(catalogue(path)) == 1


@pytest.mark.parametrize("text", [
    "", "recipe = []", '[recipe]\nmodel = "a"', "[[recipe]]\nquant = 4", '[[recipes]]\nmodel = "a"',
    '[[recipe]]\nmodel = 3', '[[recipe]]\nmodel = "a"\ncache = "c"', "recipe = [3]",
])
def test_what_no_catalogue_may_hold_is_not_valid_and_is_refused(text, tmp_path):
    path = tmp_path / "catalogue.toml"
    path.write_text(text)

    assert problems(json_schema.catalogue(), tomllib.loads(text)) != []
    with pytest.raises(RecipeError):
        catalogue(path)


@pytest.mark.parametrize("name", ["recipe", "catalogue", "project", "why"])
def test_a_schema_is_printed(name, capsys):
    assert main(["schema", name]) == 0
    jsonschema.Draft7Validator.check_schema(json.loads(capsys.readouterr().out))


def test_a_schema_that_is_not_there_is_an_error_with_the_nearest(capsys):
    assert main(["schema", "recipes2"]) == 2
    assert 'did you mean "recipes"' in capsys.readouterr().err


def test_a_schema_refuses_what_lacks_a_key_or_has_another_type():
    """Else no test above could fail."""
    good = {"schema": 1, "steps": [], "places": [], "recipe": ""}
    schema = output.schema("why")
    assert problems(schema, good) == []
    for bad in ({"steps": [{}]}, {"steps": 1}, {"schema": 2}, {"recipe": None}):
        assert problems(schema, good | bad) != []
    assert problems(schema, {"schema": 1}) != []
