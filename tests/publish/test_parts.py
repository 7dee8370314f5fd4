"""Names, zips, licences, cards and recipes of what is published, each alone."""

import hashlib
import tomllib
import zipfile

import pytest

from sdbuild.base.errors import BundleError, RecipeError
from sdbuild.engine.plan import plan
from sdbuild.publish import card, licences
from sdbuild.publish.archive import check_zip, write_zip
from sdbuild.publish.card import Facts, Sum
from sdbuild.publish.changes import changes
from sdbuild.publish.names import Variant, chosen, folder_of, net_of, zip_of
from sdbuild.recipe.project import BUILT_IN
from sdbuild.recipe.recipe import load
from sdbuild.recipe.text import text_of
from tests.bundle.small_bundles import SmallBundle


def variant(**changes):
    return Variant(**{"family": "sd", "attention": "original", "width_px": 512, "height_px": 512,
                      "nbits": 6, "has_controlnets": False} | changes)


@pytest.mark.parametrize(("changes", "folder", "archive"), [
    ({}, "original/compiled", "coreml-dreamy-palettized_original_compiled.zip"),
    ({"attention": "split_einsum_v2"}, "split_einsum_v2/compiled",
     "coreml-dreamy-palettized_split_einsum_v2_compiled.zip"),
    ({"width_px": 768}, "original/768x512/compiled",
     "original/768x512/dreamy_original_768x512.zip"),
    ({"family": "sdxl", "width_px": 1024, "height_px": 1024}, "original/compiled",
     "coreml-dreamy-palettized_original_compiled.zip"),
    ({"family": "sdxl"}, "original/512x512/compiled",
     "original/512x512/dreamy_original_512x512.zip"),
    ({"has_controlnets": True}, "original/cn/compiled", "original/cn/dreamy_original_cn.zip"),
])
def test_a_variant_lies_where_apps_look_for_it(changes, folder, archive):
    """Expected names: apple's and coreml-community's repositories, and ModelInfo.swift."""
    assert folder_of(variant(**changes), {}) == folder
    assert zip_of("coreml-dreamy-palettized", folder) == archive


def test_a_variant_of_other_bits_takes_no_place_of_another():
    taken = {"original/compiled": "6bit"}

    assert folder_of(variant(), taken) == "original/compiled"
    assert folder_of(variant(nbits=4), taken) == "original/4bit/compiled"
    assert folder_of(variant(nbits=None), taken) == "original/fp16/compiled"


@pytest.mark.parametrize(("word", "found"), [
    (None, ["original/4bit/compiled", "original/compiled", "split_einsum/compiled"]),
    ("original/compiled", ["original/compiled"]), ("original/4bit", ["original/4bit/compiled"]),
    ("4bit", ["original/4bit/compiled"]), ("split_einsum", ["split_einsum/compiled"]),
    ("einsum", []), ("/split_einsum/", ["split_einsum/compiled"]),
])
def test_a_word_finds_the_variants_that_it_fits(word, found):
    folders = ["original/compiled", "original/4bit/compiled", "split_einsum/compiled"]

    assert chosen(folders, word) == found


@pytest.mark.parametrize(("words", "place"), [
    ({}, ("original", "128x128", "6bit", False)),
    ({"quant": "none", "attention": "split_einsum"}, ("split_einsum", "128x128", "fp16", False)),
    ({"model": "tiny-emoji-control", "quant": "4"}, ("original", "128x128", "4bit", True)),
    ({"quant": "4", "chunk": "1", "target": "iOS17"}, ("original", "128x128", "4bit", False)),
    ({"activations": "8", "target": "iOS17"}, ("original", "128x128", "w8a8", False)),
])
def test_the_place_of_a_variant_is_known_before_it_is_built(words, place):
    assert Variant.planned(load({"model": "tiny-emoji", **words})).place == place


@pytest.mark.parametrize(("budget", "word"), [
    ({"bits": {"*": 4}}, "bits"), ({"average_bits": 4.5}, "4bit")])
def test_the_folder_of_a_bit_recipe_tells_no_number_of_bits(budget, word, tmp_path):
    manifest = {
        "family": "sd", "attention": "original", "width_px": 512, "height_px": 512,
        "components": {"unet": {"nbits": 8 if "bits" in budget else 4}},
        "made_from": [{"step": "convert:unet"},
                      {"step": "allocate:unet", "params": {"budget": budget}}]}
    file = tmp_path / "bits.json"
    file.write_text('{"schema": 1, "components": {"unet": {"*": 4}}}', "utf-8")
    given = {"bits": str(file)} if "bits" in budget else {"quant": "4.5"}

    assert Variant.of(manifest).bits_word == word
    assert Variant.planned(load({"model": "tiny-emoji", **given})).bits_word == word


def test_a_controlnet_is_called_after_its_size_and_layout():
    """Expected: coreml-community's ControlNet-Models-For-Core-ML, `Canny-5x7-SE`."""
    assert net_of(variant(height_px=768, attention="split_einsum"), "Canny") == "Canny-5x7-SE"


def test_zips_of_the_same_files_are_the_same_bytes(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        for order in ("ab", "ba")[name == "other"]:
            (tmp_path / name / order).write_bytes(order.encode() * 1000)
    (tmp_path / "other" / "a").chmod(0o600)
    for name in ("one", "other"):
        write_zip(tmp_path / f"{name}.zip", {
            f"x/{path.name}": path for path in (tmp_path / name).iterdir()} | {"x/c": b"c"})

    one, other = ((tmp_path / f"{name}.zip").read_bytes() for name in ("one", "other"))

    assert one == other
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["x/a", "x/b", "x/c"]
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_zip_that_hosts_cannot_use_is_refused(tmp_path):
    made = SmallBundle("sd-guidance-7.5")
    del made.models["VAEDecoder"]
    folder = made.write(tmp_path / "bundle")
    write_zip(tmp_path / "a.zip", {f"a/{path.relative_to(folder)}": path
                                   for path in folder.rglob("*") if path.is_file()})

    with pytest.raises(BundleError):
        check_zip(tmp_path / "a.zip")


@pytest.mark.parametrize(("licence", "wrong"), [
    (None, "names no licence"), ("", "names no licence"),
    ("cc-by-nc-nd-4.0", "forbids sharing what is made from it"),
    ("unknown", "is not known"),
])
def test_a_bundle_that_may_not_be_passed_on_is_not_published(licence, wrong):
    with pytest.raises(RecipeError, match=wrong) as refused:
        licences.check(licence, False)

    assert "licence=NAME" in refused.value.hint


def test_a_licence_that_forbids_it_lets_a_private_repository_be():
    assert licences.check("creativeml-openrail-m", False) == []
    assert "keep the repository private" in licences.check("cc-by-nd-4.0", True)[0]
    assert "no commercial use" in licences.check("cc-by-nc-4.0", False)[0]


@pytest.mark.parametrize(("licence", "end"), [
    ("nonsense", "; licence=other stands for any"),
    ("creativeml-openrail", '; did you mean "creativeml-openrail-m"?'),
])
def test_a_licence_that_the_hub_does_not_know_is_a_warning(licence, end):
    """It refuses such a card, but its list grows: huggingface/huggingface_hub, issue 4218."""
    (said,) = licences.check(licence, False)

    assert said.startswith(f"warning: the Hub takes no licence of the name {licence}")
    assert said.endswith(end)


def test_a_folder_without_models_is_not_compared(tmp_path):
    made = SmallBundle("sd-guidance-7.5").write(tmp_path / "bundle")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"a")

    with pytest.raises(BundleError, match="photos: neither a bundle nor a model"):
        changes(made, tmp_path / "photos")
    (unet,) = changes(made / "Unet.mlmodelc", made / "Unet.mlmodelc").components
    assert (unet.name, unet.files, unet.gone) == ("model", (), ())


MANIFEST = {
    "name": "dreamy", "family": "sd", "attention": "original", "target": "iOS17",
    "licence": "creativeml-openrail-m", "prediction_type": "epsilon", "scale_factor": 0.18215,
    "draw": {"scheduler": "dpm", "steps": 20, "guidance": 5.0},
    "components": {"unet": {"models": ["UnetChunk1.mlmodelc", "UnetChunk2.mlmodelc"], "nbits": 6}},
    "hosts": {"MochiDiffusion": {"runs": "no", "reasons": ["a | b", "<b>c</b>"]}},
    "made_from": [{"step": "download:unet", "source": {"unet/a.safetensors": "sha256:12"}}],
}


def facts(folder="original/compiled", **changes):
    return Facts(**{
        "variant": variant(), "folder": folder, "archive": "a.zip", "manifest": MANIFEST,
        "recipe_name": "dreamy", "recipe": 'source = "hub:owner/dreamy"\nsize = "512x512"\n',
        "files": {f"{folder}/vocab.json": Sum("0" * 64, 12), "a.zip": Sum("1" * 64, 1 << 33)},
        "parity": {"unet": {"noise_pred": 61.25}}} | changes)


HEADER = card.header_of(MANIFEST, ["owner/dreamy"])


def test_a_card_gives_back_what_was_written_into_it():
    text = card.with_section("# dreamy\n", facts(), HEADER)

    (found,) = card.sections(text).values()

    assert (found.folder, found.bits, found.recipe_name) == ("original/compiled", "6bit", "dreamy")
    assert found.recipe == facts().recipe
    assert found.files == facts().files
    assert "| unet | noise_pred | 61.2 dB |" in text
    assert "a \\| b; \\<b\\>c\\</b\\>" in text
    assert "`~/MochiDiffusion/models/NAME/`" in text


def test_a_card_says_what_to_write_in_prompts_for_each_embedding():
    """As each build does: `in prompts: badhand badhanda`."""
    words = MANIFEST | {"words": [["cattoy"], ["badhand", "badhanda"]]}

    plain, text = (card.with_section("", facts(manifest=manifest), HEADER)
                   for manifest in (MANIFEST, words))

    assert "| in prompts | `cattoy`, a learned word |\n" in text
    assert "| in prompts | `badhand badhanda`, learned words, all of them in this order |\n" in text
    assert "in prompts" not in plain


def test_a_card_tells_no_number_of_bits_where_each_weight_has_its_own():
    bits = {"schema": 1, "components": {"unet": {"*": 4}}}

    text = card.with_section("", facts(manifest={**MANIFEST, "bits": bits}), HEADER)

    assert "| weights | bits of each weight |" in text


def test_a_card_has_the_fields_without_which_the_hub_shows_no_label():
    import yaml

    text = card.with_section("# dreamy\n", facts(), HEADER)

    assert yaml.safe_load(text.split("---\n")[1]) == {
        "library_name": "coreml", "pipeline_tag": "text-to-image",
        "license": "creativeml-openrail-m", "base_model": ["owner/dreamy"],
        "tags": ["coreml", "core-ml", "stable-diffusion", "text-to-image"]}


def test_what_an_owner_wrote_into_a_card_stays():
    own = "---\nlicense: openrail++\ntags:\n- mine\n---\n# My words\n"
    one = card.with_section(own, facts(), HEADER)
    two = card.with_section(one + "\nMore of mine.\n", facts("split_einsum/compiled"), HEADER)

    again = card.with_section(two, facts(recipe="size = 1\n"), HEADER)

    assert again.startswith("---\nlicense: openrail++\ntags:\n- mine\nlibrary_name: coreml\n")
    assert "# My words" in again
    assert "More of mine." in again
    assert again.count("tags:") == 1
    assert set(card.sections(again)) == {"original/compiled", "split_einsum/compiled"}
    assert card.sections(again)["original/compiled"].recipe == "size = 1\n"
    assert card.sections(again)["split_einsum/compiled"].recipe == facts().recipe


def test_a_card_that_notepad_saved_keeps_its_one_header():
    import yaml

    own = "\ufeff---\r\nlicense: openrail++\r\n---\r\n# Mine\r\n"

    text = card.with_section(own, facts(), HEADER)

    assert text.count("\n---\n") == 1
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "openrail++"
    assert "\n# Mine\n" in text


@pytest.mark.parametrize("text", [
    "<!-- sdbuild variant a b -->\n<!-- end of variant -->\n",
    "<!-- sdbuild variant a b -->\n```toml\n# a.toml\nx = 1\n```\n" + "0" * 64
    + " 1  ../../etc/passwd\n<!-- end of variant -->\n",
    "<!-- sdbuild variant ../a b -->\n```toml\n# a.toml\nx = 1\n```\n" + "0" * 64
    + " 1  a\n<!-- end of variant -->\n",
    "x" * (1 << 22),
])
def test_a_card_that_sdbuild_did_not_write_is_refused(text):
    with pytest.raises(BundleError):
        card.sections(text)


@pytest.mark.parametrize("words", [
    {"model": "tiny-emoji", "quant": "4", "attention": "split_einsum"},
    {"model": "tiny-emoji", "components": "text_encoder,unet,vae_decoder", "chunk": "1"},
    {"model": "tiny-emoji-control"}, {"model": "sdxl-base", "size": "768x512"},
])
def test_the_text_of_a_recipe_plans_the_same_steps_anywhere(words, tmp_path):
    recipe = load(words)
    path = tmp_path / f"{recipe.name}.toml"
    path.write_text(text_of(recipe, words), "utf-8")

    again = load({"model": str(path)})

    assert tomllib.loads(path.read_text())["family"] == recipe.family.name
    ours, theirs = plan(recipe).steps, plan(again).steps
    assert {name: (step.params, step.inputs, step.source) for name, step in theirs.items()} == {
        name: (step.params, step.inputs, step.source) for name, step in ours.items()}


def test_a_recipe_for_others_tells_no_folders_of_this_machine(tmp_path):
    folder = tmp_path / "secret" / "dreamy"
    words = {"model": "tiny-emoji", "source": f"hub:owner/a,{folder}",
             "lora": f"{tmp_path}/secret/ink.safetensors:0.5"}

    text = text_of(load(words), words, is_public=True)

    found = tomllib.loads(text)
    assert found["source"] == ["hub:owner/a", "dreamy"]
    assert found["lora"] == ["ink.safetensors:0.5"]
    assert "secret" not in text
    built_in = text_of(load({"model": "tiny-emoji"}), {"model": "tiny-emoji"}, is_public=True)
    assert tomllib.loads(built_in)["source"] == ["builtin:tiny-emoji"]
    assert str(BUILT_IN) not in built_in


def test_sums_in_a_card_are_those_of_the_files(tmp_path):
    from sdbuild.base.digest import sha256_file

    (tmp_path / "a").write_bytes(b"abc")

    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
