"""Bundles of anybody: nothing that they say leads out of them, hangs, or steers a terminal."""

import contextlib
import json
import os
import sys

import pytest

from sdbuild.base.errors import BundleError
from sdbuild.base.printable import Printable, printable
from sdbuild.bundle.contract import violations
from sdbuild.bundle.manifest import load_bundle
from sdbuild.bundle.places import located
from sdbuild.cli.main import main

MODELS = {"text_encoder": ["TextEncoder.mlmodelc"], "unet": ["UnetChunk1.mlmodelc"],
          "vae_decoder": ["VAEDecoder.mlmodelc"]}
MANIFEST = {
    "schema": 1, "name": "small", "family": "sd", "width_px": 128, "height_px": 128,
    "attention": "original", "target": "iOS16", "scale_factor": 0.18215, "pad_token": "!",
    "prediction_type": "epsilon", "scheduler": {"num_train_timesteps": 1000},
    "components": {name: {"models": models, "nbits": 6} for name, models in MODELS.items()},
    "draw": {"prompt": "a fox", "steps": 1}, "files": {"vocab.json": [2, "0" * 32]},
}


class Foreign:
    """A bundle in a folder, with a file beside it that is none of its business."""

    def __init__(self, folder):
        self.folder = folder / "bundle"
        self.secret = folder / "secret"
        self.secret.write_text("{}")
        (folder / "elsewhere.mlmodelc").mkdir()
        for models in MODELS.values():
            (self.folder / models[0]).mkdir(parents=True)
        (self.folder / "vocab.json").write_text("{}")
        self.describe()

    def describe(self, **other):
        (self.folder / "manifest.json").write_text(json.dumps(MANIFEST | other))
        return self


@pytest.fixture
def foreign(tmp_path):
    return Foreign(tmp_path)


def refused(foreign, match):
    with pytest.raises(BundleError, match=match):
        load_bundle(foreign.folder)


def test_an_honest_bundle_is_read(foreign):
    bundle = load_bundle(foreign.folder)

    assert bundle.name == "small"
    assert bundle.description == "small, 6 bit, original, iOS16"
    assert bundle.models["unet"] == (foreign.folder / "UnetChunk1.mlmodelc",)


def test_a_bundle_whose_weights_have_bits_of_their_own_is_not_described_by_a_number(foreign):
    bits = {"schema": 1, "components": {"unet": {"conv_in.weight": 8, "*": 4}}}

    bundle = load_bundle(foreign.describe(bits=bits).folder)

    assert bundle.description == "small, bits of each weight, original, iOS16"


@pytest.mark.parametrize("name", [
    "../up", "/etc/cron.d/x", "a/b", "..", ".", ".bashrc", "a\\b", "-rf", "a:b", "x" * 201,
    "a\nERROR: b", "a\x1b]0;title\x07", "", 5, None, ["a"], {"a": 1},
])
def test_a_name_that_would_lead_out_of_the_folder_of_pictures_is_refused(name, foreign):
    refused(foreign.describe(name=name), r"name|control character")


@pytest.mark.parametrize("name", ["my model v1.5 (anime)", "模型", "été", "x" * 200])
def test_a_name_is_free_otherwise(name, foreign):
    assert load_bundle(foreign.describe(name=name).folder).name == name


def test_a_picture_is_not_written_out_of_the_folder_that_it_belongs_in(
    foreign, tmp_path, monkeypatch, capsys,
):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    foreign.describe(name="../../escaped")

    assert main(["generate", str(foreign.folder)]) == 1

    assert "expected the name of a file" in capsys.readouterr().err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("model", [
    "../elsewhere.mlmodelc", "{absolute}", "UnetChunk1.mlmodelc/../../elsewhere.mlmodelc", ".", "",
    "./UnetChunk1.mlmodelc", "vocab.json", "missing.mlmodelc", "..\\x",
])
def test_models_lie_in_the_bundle(model, foreign, tmp_path):
    model = model.format(absolute=tmp_path / "elsewhere.mlmodelc")

    refused(foreign.describe(components={"unet": {"models": [model], "nbits": None}}),
            "expected the folder of a model in the bundle")


@pytest.mark.parametrize("file", ["../secret", "{absolute}", "a/../../secret", "", "a\\..\\b"])
def test_files_that_a_manifest_lists_lie_in_the_bundle(file, foreign):
    file = file.format(absolute=foreign.secret)

    refused(foreign.describe(files={file: [2, "0" * 32]}), "expected a file in it")


@pytest.mark.parametrize("place", ["vocab.json", "UnetChunk1.mlmodelc/model.mil", "unlisted"])
def test_links_that_lead_out_are_refused(place, foreign):
    (foreign.folder / place).unlink(missing_ok=True)
    (foreign.folder / place).symlink_to(foreign.secret)

    refused(foreign, "a link that leads out of the bundle")


def test_a_model_that_is_a_link_out_is_refused(foreign, tmp_path):
    (foreign.folder / "UnetChunk1.mlmodelc").rmdir()
    (foreign.folder / "UnetChunk1.mlmodelc").symlink_to(tmp_path / "elsewhere.mlmodelc")

    refused(foreign, "a link that leads out of the bundle")


def test_links_within_a_bundle_are_followed(foreign):
    (foreign.folder / "vocab.json").rename(foreign.folder / "real.json")
    (foreign.folder / "vocab.json").symlink_to("real.json")
    (foreign.folder / "again").symlink_to(".")

    assert load_bundle(foreign.folder).name == "small"


def test_a_bundle_without_variants_says_so_and_is_the_one_of_its_own_folder(tmp_path):
    (tmp_path / "Unet.mlmodelc").mkdir()

    with pytest.raises(BundleError, match="no variant 'x/y'") as refused, located(tmp_path, "x/y"):
        pass
    assert refused.value.hint == "it has no variants: leave variant out"
    with located(tmp_path, ".") as (folder, _):
        assert folder.samefile(tmp_path)


def test_a_link_to_itself_is_refused(foreign):
    (foreign.folder / "loop").symlink_to("loop")

    refused(foreign, "loop: cannot be read")


@pytest.mark.parametrize("place", ["vocab.json", "tokenizer_config.json",
                                   "UnetChunk1.mlmodelc/weights", "manifest.json"])
def test_a_pipe_is_refused_and_not_waited_for(place, foreign):
    (foreign.folder / place).unlink(missing_ok=True)
    os.mkfifo(foreign.folder / place)

    refused(foreign, "not a file|neither a file nor a folder")


@pytest.mark.parametrize("place", ["vocab.json", "merges.txt", "manifest.json",
                                   "UnetChunk1.mlmodelc/coremldata.bin",
                                   "UnetChunk1.mlmodelc/model.mil",
                                   "UnetChunk1.mlmodelc/metadata.json"])
def test_the_contract_of_a_bundle_with_a_pipe_is_checked_and_nothing_waited_for(place, foreign):
    (foreign.folder / place).unlink(missing_ok=True)
    os.mkfifo(foreign.folder / place)

    assert violations(foreign.folder)


def test_a_file_that_is_shorter_than_said_is_refused(foreign):
    refused(foreign.describe(files={"vocab.json": [3, "0" * 32]}), "2 bytes, expected 3")


def test_a_schedule_that_would_take_all_memory_is_refused(foreign):
    refused(foreign.describe(scheduler={"num_train_timesteps": 10**10}), "num_train_timesteps")


WRONG = [None, True, 5, -1, 1.5, "text", "", [], [1], {}, {"a": 1}, [[]], "1e999"]


@pytest.mark.parametrize("value", WRONG, ids=repr)
@pytest.mark.parametrize("field", MANIFEST)
def test_a_field_of_any_kind_is_read_or_refused(field, value, foreign):
    foreign.describe(**{field: value})

    with contextlib.suppress(BundleError):
        load_bundle(foreign.folder)


@pytest.mark.parametrize("value", WRONG, ids=repr)
@pytest.mark.parametrize("field", ["models", "nbits"])
def test_a_field_of_a_component_of_any_kind_is_read_or_refused(field, value, foreign):
    foreign.describe(components={"unet": MANIFEST["components"]["unet"] | {field: value}})

    with contextlib.suppress(BundleError):
        load_bundle(foreign.folder)


@pytest.mark.parametrize("settings", [
    {}, {"prompt": 5}, {"steps": "many"}, {"count": 10**9}, {"seed": []}, {"guidance": {}},
    {"scheduler": ["dpm"]}, {"prompt": None},
], ids=repr)
def test_settings_of_any_kind_are_used_or_refused(settings, foreign, capsys):
    foreign.describe(draw=settings)

    assert main(["generate", str(foreign.folder)]) in (1, 2)
    assert capsys.readouterr().err.startswith("ERROR: ")


# output


@pytest.mark.parametrize(("text", "shown"), [
    ("a fox, 模型 été 👩‍🚀\n\tdone", "a fox, 模型 été 👩‍🚀\n\tdone"),
    ("\x1b[2J", r"\x1b[2J"), ("\x1b]52;c;cm0=\x07", r"\x1b]52;c;cm0=\x07"),
    ("\x9b31m", r"\x9b31m"), ("ok\rERROR", r"ok\rERROR"), ("a\u202egnp.exe", r"a\u202egnp.exe"),
    ("a\x00b\x7f\x08", r"a\x00b\x7f\x08"), ("\udc80", r"\udc80"), ("\u2028", r"\u2028"),
])
def test_what_steers_a_terminal_is_written_as_its_escape(text, shown):
    assert printable(text) == shown


def test_a_stream_passes_on_what_may_be_shown_and_is_the_stream_otherwise(capsys):
    stream = Printable(sys.stdout)
    print("a\x1b[2J", file=stream)
    stream.writelines(["b\x07", "c"])

    assert capsys.readouterr().out == "a\\x1b[2J\nb\\x07c"
    assert stream.isatty() == sys.stdout.isatty()
    assert stream.encoding == sys.stdout.encoding


def test_a_command_prints_no_names_of_files_that_steer_a_terminal(foreign, capfd):
    (foreign.folder / "a\x1b]0;owned\x07.mlmodelc").mkdir()

    assert main(["contract", str(foreign.folder)]) == 1

    out, err = capfd.readouterr()
    assert r"a\x1b]0;owned\x07.mlmodelc" in out
    assert not {"\x1b", "\x07"} & set(out + err)


def test_a_variant_is_named_only_where_there_is_a_choice(tmp_path):
    (tmp_path / "one" / "Unet.mlmodelc").mkdir(parents=True)
    with located(tmp_path) as (folder, notes):
        assert (folder, notes) == (tmp_path / "one", [])

    (tmp_path / "two" / "Unet.mlmodelc").mkdir(parents=True)
    with located(tmp_path) as (_, notes):
        assert notes == ["variant=one is taken"]


def test_a_model_in_the_place_of_a_bundle_says_where_the_bundle_is(tmp_path):
    (tmp_path / "Unet.mlmodelc").mkdir()

    with pytest.raises(BundleError, match=r"Unet\.mlmodelc: one model") as refused, \
            located(tmp_path / "Unet.mlmodelc"):
        pass

    assert str(tmp_path) in refused.value.hint
