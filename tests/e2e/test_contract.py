"""The contract with hosts: a good bundle breaks no rule, and each broken one the rule meant for it.

Expected names, shapes and consequences: apple/ml-stable-diffusion at e12202c, MochiDiffusion at
e686551; read in their sources.
"""

import json
import shutil

import pytest

from sdbuild.base.errors import BundleError, ContractBroken
from sdbuild.bundle.contract import require, violations
from sdbuild.mil.files.coremldata import pack_description, unpack_description

FLOAT16, FLOAT32, INT32 = 65552, 65568, 131104


class Broken:
    """A copy of a bundle, and the ways to break it."""

    def __init__(self, source, folder):
        self.folder = shutil.copytree(source, folder, copy_function=shutil.copyfile)

    def remove(self, name):
        path = self.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    def rename(self, name, new):
        (self.folder / name).rename(self.folder / new)

    def copy(self, name, new):
        shutil.copytree(self.folder / name, self.folder / new)

    def write(self, name, content):
        (self.folder / name).write_bytes(content)

    def edit(self, name, old, new):
        content = (self.folder / name).read_bytes()
        assert old in content
        self.write(name, content.replace(old, new))

    def manifest(self, **fields):
        path = self.folder / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    def describe(self, model, change):
        """Changes the features that a model declares."""
        path = self.folder / f"{model}.mlmodelc" / "coremldata.bin"
        version, description = unpack_description(path.read_bytes(), "")
        change(description)
        path.write_bytes(pack_description(version, description, 1))

    def port(self, model, name, *, shape=None, dtype=None, new_name=None):
        """Changes one feature of a model."""
        def change(description):
            for feature in (*description.input, *description.output):
                if feature.name == name:
                    array = feature.type.multiArrayType
                    array.shape[:] = shape or array.shape
                    array.dataType = dtype or array.dataType
                    feature.name = new_name or name
        self.describe(model, change)

    def another(self, model, side, new_name):
        """Gives a model one more input or output, like its first one."""
        def change(description):
            features = getattr(description, side)
            features.add().CopyFrom(features[0])
            features[-1].name = new_name
        self.describe(model, change)


@pytest.fixture
def chunked(built, tmp_path):
    return Broken(built.bundle, tmp_path / "broken")


@pytest.fixture
def whole(built, tmp_path):
    return Broken(built.folder / "fp16", tmp_path / "broken")


def crossing(bundle):
    """The name of a value that crosses from chunk to chunk."""
    path = bundle.folder / "UnetChunk1.mlmodelc" / "coremldata.bin"
    return unpack_description(path.read_bytes(), "")[1].output[0].name


# In the order of the rules: what is broken, the rules that it breaks, and what is said of it.
WHOLE = {
    "no text encoder": (
        lambda b: b.remove("TextEncoder.mlmodelc"), "has_the_models_of_every_picture",
        "TextEncoder.mlmodelc: found nothing, expected the model"),
    "a name in other letters": (
        lambda b: b.rename("VAEDecoder.mlmodelc", "VaeDecoder.mlmodelc"),
        "has_the_models_of_every_picture", "found VaeDecoder.mlmodelc, expected the model"),
    "a package in place of a model": (
        lambda b: b.rename("Unet.mlmodelc", "Unet.mlpackage"), "has_a_unet holds_no_packages",
        "Unet.mlmodelc: found Unet.mlpackage, expected it, or its two chunks"),
    "a chunk beside the whole": (
        lambda b: b.copy("Unet.mlmodelc", "UnetChunk1.mlmodelc"),
        "chunks_come_in_pairs chunks_never_stand_beside_the_whole",
        "found also UnetChunk1.mlmodelc, expected only one of the two forms"),
    "a description cut short": (
        lambda b: b.write("VAEDecoder.mlmodelc/coremldata.bin", b"\xf6\x01"),
        "descriptions_can_be_read", "ends inside its header"),
    "no description": (
        lambda b: b.remove("Unet.mlmodelc/coremldata.bin"), "descriptions_can_be_read",
        "coremldata.bin: no such file"),
    "no program": (
        lambda b: b.remove("Unet.mlmodelc/model.mil"), "programs_are_there",
        "Unet.mlmodelc/model.mil: found nothing"),
    "no weights": (
        lambda b: b.remove("Unet.mlmodelc/weights"), "weights_are_there",
        "Unet.mlmodelc/weights/weight.bin: found no file"),
    "no VAE encoder": (
        lambda b: b.remove("VAEEncoder.mlmodelc"), "has_a_vae_encoder",
        "warning: VAEEncoder.mlmodelc"),
    "an attention mask": (
        lambda b: b.another("TextEncoder", "input", "attention_mask"),
        "text_encoders_have_one_input", "inputs attention_mask, input_ids, expected exactly one"),
    "tokens of two prompts": (
        lambda b: b.port("TextEncoder", "input_ids", shape=[2, 77]), "text_encoders_take_tokens",
        "found (2, 77), expected (1, tokens)"),
    "another name for the embeddings": (
        lambda b: b.port("TextEncoder", "last_hidden_state", new_name="hidden_states"),
        "text_encoder_gives_last_hidden_state",
        "outputs hidden_states, pooled_outputs, expected last_hidden_state"),
    "another name for the latents": (
        lambda b: b.port("Unet", "sample", new_name="latents"),
        "unets_begin_with_sample unets_take_what_is_fed", "expected sample among them"),
    "an input of XL": (
        lambda b: b.another("Unet", "input", "time_ids"), "unets_take_what_is_fed",
        "inputs encoder_hidden_states, sample, time_ids, timestep"),
    "embeddings with tokens first": (
        lambda b: b.port("Unet", "encoder_hidden_states", shape=[2, 77, 64]),
        "unets_inputs_have_their_shapes",
        "found (2, 77, 64), expected (batch, width, 1, tokens)"),
    "a second output of the U-Net": (
        lambda b: b.another("Unet", "output", "aux"), "unets_have_one_output",
        "outputs aux, noise_pred, expected exactly one"),
    "noise of another size": (
        lambda b: b.port("Unet", "noise_pred", shape=[2, 8, 16, 16]),
        "unets_outputs_are_like_sample latents_have_one_size",
        "found (2, 8, 16, 16), expected (2, 4, 16, 16)"),
    "a second output of the decoder": (
        lambda b: b.another("VAEDecoder", "output", "aux"), "vaes_have_one_input_and_one_output",
        "outputs aux, image, expected exactly one"),
    "a picture with channels last": (
        lambda b: b.port("VAEDecoder", "image", shape=[1, 3, 128]), "vae_decoder_gives_a_picture",
        "found (1, 3, 128), expected (1, 3, H, W)"),
    "an encoder that has sampled already": (
        lambda b: b.port("VAEEncoder", "latent", shape=[1, 4, 16, 16]),
        "vae_encoder_gives_mean_and_variance latents_have_one_size", "expected (1, 8, h, w)"),
    "tokens as integers": (
        lambda b: b.port("TextEncoder", "input_ids", dtype=INT32), "text_encoders_take_fp32",
        "warning: TextEncoder.mlmodelc input_ids: found int32, expected fp32"),
    "timesteps as integers": (
        lambda b: b.port("Unet", "timestep", dtype=INT32), "unets_take_floats",
        "warning: Unet.mlmodelc timestep: found int32, expected fp16 or fp32"),
    "a picture in fp16": (
        lambda b: b.port("VAEDecoder", "image", dtype=FLOAT16), "vae_outputs_are_fp32",
        "warning: VAEDecoder.mlmodelc image: found fp16, expected fp32"),
    "noise in fp16": (
        lambda b: b.port("Unet", "noise_pred", dtype=FLOAT16), "unets_give_fp32",
        "warning: Unet.mlmodelc noise_pred: found fp16"),
    "a decoder of another size": (
        lambda b: b.port("VAEDecoder", "z", shape=[1, 4, 16, 32]), "latents_have_one_size",
        "found latents of 32×16 in 4 channels, expected 16×16 in 4 channels as Unet.mlmodelc"),
    "an encoder of another size": (
        lambda b: b.port("VAEEncoder", "x", shape=[1, 3, 128, 256]), "pictures_have_one_size",
        "found pictures of 256×128, expected 128×128"),
    "a manifest of another size": (
        lambda b: b.manifest(width_px=512), "pictures_have_one_size",
        "manifest.json: found pictures of 512×128"),
    "embeddings of another width": (
        lambda b: b.port("TextEncoder", "last_hidden_state", shape=[1, 77, 768]),
        "embeddings_fit", "found 77 tokens, 768 wide, expected 77, 64 wide for Unet.mlmodelc"),
    "timesteps of another batch": (
        lambda b: b.port("Unet", "timestep", shape=[1]), "batch_is_one_or_two",
        "batches of 2 in Unet.mlmodelc sample, 1 in Unet.mlmodelc timestep"),
    "a page in place of the vocabulary": (
        lambda b: b.write("vocab.json", b"<html>"), "vocabulary_is_flat", "found not JSON"),
    "no vocabulary": (
        lambda b: b.remove("vocab.json"), "vocabulary_is_flat", "no such file"),
    "a vocabulary of strings": (
        lambda b: b.edit("vocab.json", b'"<|endoftext|>":', b'"<|endoftext|>":0.'),
        "vocabulary_is_flat", "expected an integer"),
    "a vocabulary without an end": (
        lambda b: b.edit("vocab.json", b"<|endoftext|>", b"</s>"),
        "vocabulary_has_the_special_tokens", "vocab.json: found no <|endoftext|>"),
    "a rule of three words": (
        lambda b: b.edit("merges.txt", b"\n", b"\na b c\n"), "merges_are_pairs",
        "merges.txt:2: found 'a b c', expected two words"),
    "line ends of Windows": (
        lambda b: b.edit("merges.txt", b"\n", b"\r\n"), "merges_have_the_line_ends_of_unix",
        "merges.txt:1: found a carriage return"),
    "no merges": (lambda b: b.remove("merges.txt"), "merges_are_pairs", "merges.txt: found no"),
    "a last rule without an end": (
        lambda b: b.write("merges.txt", b"#version: 0.2\na b\nc d"), "merges_end_their_last_line",
        "found no line feed at its end"),
    "no metadata": (
        lambda b: b.remove("Unet.mlmodelc/metadata.json"), "metadata_can_be_read",
        "Unet.mlmodelc/metadata.json: found no such file"),
    "metadata of another kind": (
        lambda b: b.write("Unet.mlmodelc/metadata.json", b"{}"), "metadata_can_be_read",
        "found another form, expected a list of one entry"),
    "metadata with another shape": (
        lambda b: b.edit("VAEEncoder.mlmodelc/metadata.json", b"128, 128", b"512, 512"),
        "metadata_shows_the_true_shapes", "found x [1, 3, 512, 512], expected [1, 3, 128, 128]"),
    "split attention without its mark": (
        lambda b: b.manifest(attention="split_einsum"), "histogram_tells_the_attention",
        "found no Ios16.einsum, expected Ios16.einsum for attention=split_einsum"),
    "the mark of split attention without it": (
        lambda b: b.edit("Unet.mlmodelc/metadata.json", b'"Ios16.mul"', b'"Ios16.einsum"'),
        "histogram_tells_the_attention", "expected no Ios16.einsum for attention=original"),
    "v-prediction": (
        lambda b: b.manifest(prediction_type="v_prediction"), "predicts_noise",
        "warning: manifest.json prediction_type: found 'v_prediction', expected 'epsilon'"),
    "another schedule": (
        lambda b: b.manifest(scheduler={"beta_schedule": "linear"}),
        "schedule_is_the_built_in_one", "scheduler.beta_schedule: found 'linear'"),
    "a schedule that ends in noise alone": (
        lambda b: b.manifest(scheduler={"rescale_betas_zero_snr": True}),
        "schedule_is_the_built_in_one", "scheduler.rescale_betas_zero_snr: found True"),
    "the scale factor of XL": (
        lambda b: b.manifest(scale_factor=0.13025), "scale_factor_is_the_familys",
        "warning: manifest.json scale_factor: found 0.13025"),
    "the pad token of 2.x": (
        lambda b: b.manifest(pad_token="!"), "prompts_are_padded_with_the_end_token",
        "warning: manifest.json pad_token: found '!'"),
    "a distilled model of batch two": (
        lambda b: b.manifest(draw={"guidance": 0.0}), "low_guidance_has_a_batch_of_one",
        "found (2, 4, 16, 16), expected a batch of one for guidance=0.0"),
}
CHUNKED = {
    "a single chunk": (
        lambda b: b.remove("UnetChunk2.mlmodelc"), "chunks_come_in_pairs",
        "UnetChunk2.mlmodelc: found only the other chunk, expected both chunks or none"),
    "a third chunk": (
        lambda b: b.copy("UnetChunk2.mlmodelc", "UnetChunk3.mlmodelc"),
        "chunks_are_two chunks_meet",
        "UnetChunk3.mlmodelc: found a third chunk"),
    "a boundary with two names": (
        lambda b: b.port("UnetChunk1", crossing(b), new_name="other"), "chunks_meet",
        "of chunk 1"),
    "a boundary with two shapes": (
        lambda b: b.port("UnetChunk1", crossing(b), shape=[2, 1, 1, 1]), "chunks_meet",
        "expected (2, 1, 1, 1) as chunk 1 gives it"),
    "a boundary that hides an input": (
        lambda b: (b.another("UnetChunk1", "output", "timestep"),
                   b.another("UnetChunk2", "input", "timestep"),
                   b.port("UnetChunk2", "timestep", shape=[2])),
        "boundary_hides_no_input",
        "UnetChunk1.mlmodelc: found outputs timestep, expected other names"),
    "a boundary in fp16": (
        lambda b: b.port("UnetChunk1", crossing(b), dtype=FLOAT16), "boundary_is_fp32",
        "found fp16, expected fp32"),
    "a second output of the second chunk": (
        lambda b: b.another("UnetChunk2", "output", "aux"), "unets_have_one_output",
        "UnetChunk2.mlmodelc: found outputs aux, noise_pred"),
}


def printed(found):
    return "\n".join(map(str, found))


def rules(found):
    """The names of the broken rules. Features change here without their copy in the metadata."""
    return {violation.rule for violation in found} - {"metadata_shows_the_true_shapes"}


@pytest.mark.parametrize("name", ["bundle", "fp16"])
def test_a_good_bundle_breaks_no_rule(built, name):
    assert violations(built.folder / name) == ()


@pytest.mark.parametrize("case", WHOLE)
def test_a_broken_bundle_breaks_the_rule_meant_for_it(whole, case):
    change, broken, message = WHOLE[case]
    change(whole)

    found = violations(whole.folder)

    assert message in printed(found)
    assert rules(found) == set(broken.split()) - {"metadata_shows_the_true_shapes"}


@pytest.mark.parametrize("case", CHUNKED)
def test_broken_chunks_break_the_rule_meant_for_them(chunked, case):
    change, broken, message = CHUNKED[case]
    change(chunked)

    found = violations(chunked.folder)

    assert message in printed(found)
    assert rules(found) == set(broken.split())


def test_a_safety_checker_takes_512_pixels_whatever_the_size_of_the_picture(whole):
    whole.copy("VAEDecoder.mlmodelc", "SafetyChecker.mlmodelc")
    whole.another("SafetyChecker", "input", "images")

    found = printed(violations(whole.folder))

    assert "SafetyChecker.mlmodelc images: found (1, 4, 16, 16), expected (1, 512, 512, 3)" in found
    assert "inputs images, z, expected adjustment, clip_input, images" in found
    assert "outputs image, expected has_nsfw_concepts" in found


def test_a_bundle_of_another_maker_needs_no_manifest(whole):
    whole.remove("manifest.json")

    assert violations(whole.folder) == ()


@pytest.mark.parametrize("manifest", [
    b"", b"[]", b"{}", b'{"scheduler": 1, "draw": [], "attention": null, "width_px": "x"}',
])
def test_a_manifest_of_any_content_stops_no_check(whole, manifest):
    whole.write("manifest.json", manifest)

    assert rules(violations(whole.folder)) == set()


def test_errors_stop_a_bundle_and_say_which_host_does_what(whole):
    whole.write("vocab.json", b"<html>")
    whole.remove("VAEEncoder.mlmodelc")

    with pytest.raises(ContractBroken) as caught:
        require(whole.folder)

    assert caught.value.message.splitlines()[0] == "hosts cannot use this bundle:"
    assert "Apple's Swift package crashes as it loads the tokenizer." in " ".join(
        caught.value.message.split())
    assert max(map(len, caught.value.message.splitlines())) <= 80
    assert "warning" not in caught.value.message
    assert [v["where"] for v in caught.value.facts["violations"]] == ["vocab.json"]


def test_warnings_stop_nothing(whole):
    whole.remove("VAEEncoder.mlmodelc")

    assert [v.level for v in require(whole.folder)] == ["warning"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BundleError, match="there is no such folder"):
        violations(tmp_path / "none")


def test_the_task_checks_the_bundle_in_place(built):
    assert "rules: 0 errors, 0 warnings" in built.doit("contract")


def test_the_command_gives_json_and_status_1_for_errors(whole, capsys):
    from sdbuild.cli.main import main

    whole.remove("merges.txt")

    status = main(["contract", str(whole.folder), "--json"])

    (found,) = json.loads(capsys.readouterr().out)["violations"]
    assert (status, found["level"], found["rule"]) == (1, "error", "merges_are_pairs")


def test_the_command_gives_status_0_for_warnings(whole, capsys):
    from sdbuild.cli.main import main

    whole.remove("VAEEncoder.mlmodelc")

    assert main(["contract", str(whole.folder)]) == 0
    assert "rules: 0 errors, 1 warnings" in capsys.readouterr().out


def test_a_bundle_with_errors_is_never_put_in_place(project, own_checkpoint):
    path = own_checkpoint / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace('"scaled_linear"', '"linear"'))

    printed = project.doit("build", status=1, source=own_checkpoint)

    assert "scheduler.beta_schedule: found 'linear', expected 'scaled_linear'" in printed
    assert "Apple's Swift package has one schedule of noise built in" in " ".join(printed.split())
    assert not project.bundle.exists()


def test_a_build_tells_warnings(project, own_checkpoint):
    path = own_checkpoint / "vae" / "config.json"
    config = json.loads(path.read_text()) | {"scaling_factor": 0.2}
    path.write_text(json.dumps(config))

    printed = project.doit("build", source=own_checkpoint)

    assert "warning: manifest.json scale_factor: found 0.2, expected 0.18215" in printed
    assert project.bundle.exists()
