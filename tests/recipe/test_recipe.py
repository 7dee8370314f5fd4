"""Recipes and variables: what they mean, and what is said of mistakes."""

from pathlib import Path

import pytest

from sdbuild.base.errors import RecipeError
from sdbuild.engine.plan import plan
from sdbuild.recipe.project import BUILT_IN, Project
from sdbuild.recipe.recipe import load

MISTAKES = {
    "model=tiny-emogi": (
        """unknown model 'tiny-emogi'; did you mean "tiny-emoji"?""",
        "the recipes are: sd-1-4, sd-1-5, ",
    ),
    "qunat=6": ("""unknown variable 'qunat'; did you mean "quant"?""",
                "sdbuild build --help lists the variables"),
    "quant=5": (
        "on the command line: quant is '5', expected one of none, 1, 2, 3, 4, 6, 8",
        "quant: bits of a palettized weight",
    ),
    "attention=split_einsun": (
        "on the command line: attention is 'split_einsun', expected one of original, "
        'split_einsum, split_einsum_v2; did you mean "split_einsum"?',
        "attention: the layout of attention",
    ),
    "chunk=9": ("on the command line: chunk is '9', expected an integer from 1 to 8", "chunk"),
    "size=100": (
        "on the command line: size is '100', expected 512 or WIDTHxHEIGHT in pixels, "
        "multiples of 8 from 64 to 2048", "size",
    ),
    "size=128,128": ("on the command line: size is '128,128', expected one to 16 sizes, each once",
                     "size"),
    "size=128,128x192": ("size=128x128,128x192 with target=iOS16: models that have a function for "
                         "each size came with iOS 18", "build a bundle for each size"),
    "size=64x": ("on the command line: size is '64x', expected 512 or WIDTHxHEIGHT", "size"),
    "config=/none": (
        "config=/none: it says what a single file does not, and none is read",
        "omit config, or use a .safetensors file",
    ),
    "model=~nobody-here/a.toml": (
        f"model=~nobody-here/a.toml: there is no such file: {Path.cwd()}/~nobody-here/a.toml", "",
    ),
    "model=~nobody-here": ("unknown model '~nobody-here'", "a file of your own is model=FILE.toml"),
    "model=/": (
        "model=/: a folder, expected a recipe's name or its file", "source=FOLDER",
    ),
    "components=unet,vea_decoder": (
        """unknown component 'vea_decoder'; did you mean "vae_decoder"?""", "the components of",
    ),
    "target=iOS15": (
        "on the command line: target is 'iOS15', expected one of iOS16, iOS17, iOS18, macOS13, "
        'macOS14, macOS15; did you mean "iOS16"?', "target",
    ),
    "guidance=much": (
        "on the command line: guidance is 'much', expected a number from 0 to 100", "guidance",
    ),
    "steps=0": ("on the command line: steps is '0', expected an integer from 1", "steps"),
    "quant=3": ("quant=3 with target=iOS16: palettes of 3 bits came with iOS 18", "target=iOS18"),
}


@pytest.mark.parametrize("word", MISTAKES)
def test_a_mistake_says_what_was_found_and_expected_and_what_helps(word):
    message, hint = MISTAKES[word]

    with pytest.raises(RecipeError) as caught:
        load(dict([word.split("=", 1)]))

    assert caught.value.message.startswith(message)
    assert hint in caught.value.hint


def test_the_command_line_overrides_the_recipe():
    recipe = load({"quant": "4", "chunk": "1", "target": "macOS14", "size": "64x128"})

    packaging, network = recipe.packaging, recipe.network
    assert (packaging.nbits, packaging.chunks, packaging.target) == (4, 1, "iOS17")
    assert (network.width_px, network.height_px) == (64, 128)


def test_components_keep_the_order_of_the_family_whatever_the_order_asked_for():
    recipe = load({"components": "vae_decoder,text_encoder"})

    assert [c.name for c in recipe.components] == ["text_encoder", "vae_decoder"]


def test_settings_of_a_picture_change_the_request_but_not_what_the_recipe_draws_best_with():
    recipe = load({"prompt": "a cat face", "seed": "7"})

    assert (recipe.request.prompt, recipe.request.seed) == ("a cat face", 7)
    assert recipe.draw == load({}).draw


def test_quant_none_leaves_every_component_in_fp16():
    recipe = load({"quant": "none"})

    assert {recipe.packaging.nbits_of(c) for c in recipe.components} == {None}


def test_every_variant_has_its_own_name():
    words = [{}, {"quant": "4"}, {"quant": "none"}, {"chunk": "1"}, {"target": "iOS17"},
             {"size": "64"}, {"palettize": "unet"}, {"source": "x"}, {"components": "unet"},
             {"attention": "split_einsum"}]

    assert len({load({"model": "tiny-emoji"} | w).variant for w in words}) == len(words)


def test_a_component_that_a_recipe_gives_no_floor_has_its_familys(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('family = "sd"\nsource = "x"\nsize = 64\ncomponents = ["unet"]\n'
                    '[floors.text_encoder]\nnone = 70\nreason = "measured"\n')

    floors = load({"model": str(path)}).check.floors

    assert floors["text_encoder"].at(None) == 70
    assert floors["unet"].at(None) == 45
    assert floors["unet"].at(6) == 25


@pytest.mark.parametrize("name", Project.here().names())
def test_every_recipe_that_we_ship_loads_and_gives_a_reason_for_each_floor(name):
    recipe = load({"model": name})

    assert recipe.summary
    assert all(recipe.check.floors[component.name].reason for component in recipe.components)


RECIPE_MISTAKES = {
    "not toml": ("x = ", "not TOML"),
    "unknown field": ('quantt = 6\n', """unknown field 'quantt'; did you mean "quant"?"""),
    "wrong type": (
        'family = "sd"\nsource = "x"\nsize = 64\ncomponents = ["unet"]\ndraw = 1\n',
        "draw is 1, expected a table [draw]",
    ),
    "no family": ("", "family is missing, expected one of sd"),
    "family that is a list": ('family = ["sd"]', "family is a list, expected one of sd"),
    "NUL": ('family = "sd"\nsource = "a\\u0000b"\n', "a control character, '\\x00'"),
    "3,000 nested lists": ("size = " + "[" * 3000 + "]" * 3000, "nested more than 64 levels"),
    "5,000 digits": ("size = " + "9" * 5000, "a number with too many digits"),
    "5,000 digits in text": (
        'family = "sd"\nsource = "x"\ncomponents = ["unet"]\nsize = 64\n[draw]\n'
        f'seed = "{"9" * 5000}"',
        "expected an integer from 0 to 9223372036854775807",
    ),
    "digits of another script": (
        'family = "sd"\nsource = "x"\ncomponents = ["unet"]\nsize = 64\n[draw]\nseed = "²"',
        "expected an integer",
    ),
    "a page": ("<html></html>", "not TOML: a web page"),
    "no source": ('family = "sd"\n', "no source"),
    "illegal value": ('family = "sd"\nsource = "x"\nsize = 64\ncomponents = ["unet"]\nquant = 5\n',
                      "quant is 5, expected one of"),
    "floor without reason": (
        'family = "sd"\nsource = "x"\nsize = 64\ncomponents = ["unet"]\n[floors.unet]\nnone = 5\n',
        "a floor has a reason",
    ),
    "floor that is no number": (
        'family = "sd"\nsource = "x"\nsize = 64\ncomponents = ["unet"]\n'
        '[floors.unet]\nnone = "x"\nreason = "y"\n', "floor is 'x', expected a number",
    ),
    "unknown draw field": (
        'family = "sd"\nsource = "x"\nsize = 64\ncomponents = ["unet"]\n[draw]\nsted = 1\n',
        """unknown field 'sted'; did you mean "seed"?""",
    ),
    "broken pictures accepted without a reason": (
        'family = "sd"\nsource = "x"\nsize = 64\ncomponents = ["unet"]\n'
        '[check]\naccepts = "broken"\n', "[check]: no reason, expected accepts with a reason",
    ),
    "a verdict that needs no accepting": (
        'family = "sd"\nsource = "x"\nsize = 64\ncomponents = ["unet"]\n'
        '[check]\naccepts = "changed"\nreason = "x"\n', "accepts is 'changed', expected",
    ),
    "no prompts to check with": (
        'family = "sd"\nsource = "x"\nsize = 64\ncomponents = ["unet"]\n'
        '[check]\nprompts = []\n', "expected a list of 1 to 16 prompts",
    ),
    "unknown check field": (
        'family = "sd"\nsource = "x"\nsize = 64\ncomponents = ["unet"]\n[check]\nprompt = "x"\n',
        """unknown field 'prompt'; did you mean "prompts"?""",
    ),
    "component twice": (
        'family = "sd"\nsource = "x"\nsize = 64\ncomponents = ["unet", "unet"]\n', "each name once",
    ),
}


@pytest.mark.parametrize("case", RECIPE_MISTAKES)
def test_a_mistake_in_a_recipe_names_the_file(case, tmp_path):
    text, message = RECIPE_MISTAKES[case]
    path = tmp_path / "mine.toml"
    path.write_text(text)

    with pytest.raises(RecipeError) as caught:
        load({"model": str(path)})

    assert str(path) in caught.value.message
    assert message in caught.value.message


def test_a_recipe_of_ones_own_finds_its_checkpoint_beside_itself(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('family = "sd"\nsource = "ckpt"\nsize = 64\ncomponents = ["unet"]\n')

    assert load({"model": str(path)}).sources.checkpoint.places == (str(tmp_path / "ckpt"),)


def test_a_source_on_the_command_line_is_relative_to_where_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    recipe = load({"model": "tiny-emoji", "source": "ckpt"})

    assert recipe.sources.checkpoint.places == (str(tmp_path / "ckpt"),)


def test_the_recipes_are_found_by_their_files():
    assert Project.here().names() == sorted(path.stem for path in BUILT_IN.glob("*.toml"))


def test_the_autoencoder_may_come_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    recipe = load({"vae": "mine.safetensors"})

    sources = {c.name: recipe.sources.of_component(c).places for c in recipe.components}
    mine = (str(tmp_path / "mine.safetensors"),)
    assert sources["vae_decoder"] == sources["vae_encoder"] == mine
    assert sources["unet"] == sources["text_encoder"] == load({}).sources.checkpoint.places


@pytest.mark.parametrize("word", ["vae=a.safetensors", "config=b", "prediction_type=epsilon",
                                  "lora=a.safetensors:0.5"])
def test_what_a_bundle_is_made_from_beside_its_source_gives_it_a_name_of_its_own(word):
    name, _, value = word.partition("=")

    file, other = ({"model": "tiny-emoji", "source": f"{n}.safetensors"} for n in "fg")

    assert load({name: value} | file).variant != load(file).variant
    assert load({name: value} | file).variant != load({name: value} | other).variant


def test_a_recipe_that_is_a_folder_is_refused(tmp_path):
    (tmp_path / "mine.toml").mkdir()

    with pytest.raises(RecipeError, match=r"mine\.toml: a folder, expected a recipe's name or"):
        load({"model": str(tmp_path / "mine.toml")})


def test_a_home_of_nobody_is_a_name_like_any_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    recipe = load({"model": "tiny-emoji", "source": "~nobody-here"})

    assert recipe.sources.checkpoint.places == (str(tmp_path / "~nobody-here"),)


@pytest.mark.parametrize("words", [
    {"source": "a.safetensors"}, {"vae": "a.safetensors"}, {"source": "b,a.safetensors"},
])
def test_a_config_goes_with_any_single_file(words):
    assert load({"model": "tiny-emoji"} | words | {"config": "c"}).sources.checkpoint.config


def test_places_in_a_recipe_are_beside_it(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('family = "sd"\nsource = "a.safetensors"\nsize = "512"\nvae = "v"\n'
                    'config = "c"\nprediction_type = "v_prediction"\ncomponents = ["unet"]\n')

    recipe = load({"model": str(path)})

    assert recipe.sources.checkpoint.places == (str(tmp_path / "a.safetensors"),)
    assert recipe.sources.checkpoint.config == str(tmp_path / "c")
    assert recipe.sources.elsewhere["vae"].places == (str(tmp_path / "v"),)
    assert recipe.sources.elsewhere["vae"].config == recipe.sources.checkpoint.config
    assert recipe.sources.prediction_type == "v_prediction"


def test_a_unet_from_elsewhere_is_used_with_the_checkpoint_and_others_stay(tmp_path):
    recipe = load({"model": "sdxl-lcm", "unet": str(tmp_path / "mine")})
    of = {c.name: recipe.sources.of_component(c) for c in recipe.components}

    assert of["unet"].places == (str(tmp_path / "mine"),)
    assert of["unet"].beside == recipe.sources.checkpoint.places
    assert of["text_encoder"] == of["vae_decoder"] == recipe.sources.checkpoint


def embeddings(value):
    return [(found.place, found.word) for found in load({"embedding": value}).sources.embeddings]


def test_embeddings_have_a_word_or_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert embeddings("a.safetensors:MyStyle, b.safetensors,/c:d/e.safetensors") == [
        (str(tmp_path / "a.safetensors"), "mystyle"), (str(tmp_path / "b.safetensors"), ""),
        ("/c:d/e.safetensors", "")]


@pytest.mark.parametrize("value", ["", "a,,b", "a.safetensors:my-style", "a.safetensors:1", []])
def test_an_embedding_that_is_none_is_refused(value):
    with pytest.raises(RecipeError):
        embeddings(value)


def test_an_embedding_for_three_text_encoders_is_refused():
    with pytest.raises(RecipeError, match="embedding for Stable Diffusion 3"):
        load({"model": "sd-3-medium", "embedding": "a.safetensors"})


def loras(value):
    return [(lora.place, lora.strength) for lora in load({"lora": value}).sources.loras]


def test_loras_have_a_strength_each_and_an_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    found = loras("a.safetensors:0.8, b:c.safetensors,/d.safetensors:-1")

    assert found == [(str(tmp_path / "a.safetensors"), 0.8),
                     (str(tmp_path / "b:c.safetensors"), 1.0), ("/d.safetensors", -1.0)]


@pytest.mark.parametrize("value", ["a.safetensors:much", "", ":1", "a.safetensors:nan", "a,,b"])
def test_a_lora_that_is_none_is_refused(value):
    with pytest.raises(RecipeError, match="expected"):
        loras(value)


@pytest.mark.parametrize("name", Project.here().names())
def test_every_recipe_can_be_planned_without_its_checkpoint(name):
    recipe = load({"model": name})

    assert recipe.sources.checkpoint.places
    denoiser = "transformer" if recipe.family.name == "sd3" else "unet"
    assert {f"compile:{denoiser}", "bundle"} <= plan(recipe).steps.keys()


def test_a_batch_of_one_is_in_the_name_and_a_prediction_makes_another_name():
    names = [load(words).variant for words in (
        {}, {"batch": "2"}, {"batch": "1"}, {"prediction": "checkpoint"},
    )]

    assert names[:3] == ["tiny-emoji-128x128-original-6bit-2chunks-iOS16"] * 2 + [
        "tiny-emoji-128x128-original-6bit-batch1-2chunks-iOS16"]
    assert names[3].startswith(names[0] + "-")


def test_a_network_is_keyed_only_by_what_it_depends_on():
    """So a text encoder serves every size, and an autoencoder every batch."""
    recipe = load({"size": "64x128", "batch": "1"})

    found = {c.name: recipe.network.params_of(c) for c in recipe.components}

    size = {"height_px": 128, "width_px": 64}
    assert found == {
        "text_encoder": {}, "vae_decoder": size, "vae_encoder": size,
        "unet": {"batch": 1, **size, "prediction": "epsilon"},
    }


def test_clip_skip_changes_the_text_encoder_and_what_is_generated():
    usual, skipping = (plan(load({"model": "tiny-emoji"} | words)).steps
                       for words in ({}, {"clip_skip": "2"}))

    changed = {name for name, step in skipping.items() if step.params != usual[name].params}
    assert changed == {"trace:text_encoder", "parity:text_encoder", "bundle", "originals",
                       "pictures"}
    said = plan(load({"model": "tiny-emoji", "clip_skip": "1"})).steps
    assert all(step.params == usual[name].params for name, step in said.items())
