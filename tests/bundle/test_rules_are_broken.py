"""Every rule of the contract is broken by a bundle of the tests, and by what its sentence says."""

import pytest

from sdbuild.bundle.bundle_reader import open_bundle
from sdbuild.bundle.compatibility import verdicts
from sdbuild.bundle.contract import RULES, violations
from tests.bundle.probes import (
    CHANGES,
    CN,
    REFINER,
    SD,
    SD3,
    TRANSFORMER,
    XL,
    add,
    all_of,
    batch,
    copy,
    draw,
    drop,
    lose,
    port,
    remove,
    says,
    t5_tokenizer,
    vocabulary,
    weighs,
    write,
)
from tests.bundle.small_bundles import SmallBundle, ruined

MORE = {
    "has_a_vae_encoder": (SD, remove("VAEEncoder")),
    "unets_inputs_have_their_shapes": (
        SD, port("Unet", "encoder_hidden_states", shape=[2, 77, 768])),
    "has_a_unet": (SD, remove("Unet")),
    "has_a_unet_for_pictures_without_controlnets": (CN, remove("Unet")),
    "chunks_are_two": ("sd-chunks", copy("UnetChunk2", "UnetChunk3")),
    "models_fit_the_neural_engine": (
        SD, all_of(says(attention="split_einsum"), weighs("Unet", 1_000_000_001))),
    "holds_no_packages": (SD, lambda b: b.folders.append("Unet.mlpackage")),
    "programs_are_there": (SD, ruined("Unet", "model.mil")),
    "weights_are_there": (SD, ruined("Unet", "model.mil", b"// \"@model_path/weights/w.bin\"")),
    "files_are_whole": (SD, write("merges.txt", "version https://git-lfs.github.com/spec/v1\n")),
    "text_encoders_take_fp32": (SD, port("TextEncoder", "input_ids", dtype="Int32")),
    "unets_take_floats": (SD, port("Unet", "timestep", dtype="Int32")),
    "transformer_takes_floats": (SD3, port(TRANSFORMER, "timestep", dtype="Int32")),
    "transformer_takes_the_built_in_widths": (
        SD3, port(TRANSFORMER, "pooled_text_embeddings", shape=[2, 1280, 1, 1])),
    "clips_fit_the_transformer": (
        SD3, port("TextEncoder2", "hidden_embeds", shape=[1, 77, 1024])),
    "pictures_are_floats": (SD, port("VAEDecoder", "z", dtype="Int32")),
    "ports_are_arrays": (SD, port("VAEDecoder", "image", dtype="Image")),
    "controlnets_inputs_are_like_the_unets": (
        CN, port("controlnet/NetA", "encoder_hidden_states", shape=[2, 16, 1, 77])),
    "controlnets_latents_are_like_the_unets": (
        CN, port("controlnet/NetA", "sample", shape=[2, 4, 16, 16])),
    "a_controlled_unet_takes_residuals": (
        CN, drop("ControlledUnet", "additional_residual_0", "additional_residual_1")),
    "projections_fit": ("ml-not-asked-for", all_of()),
    "pooled_embeddings_fit": (XL, port("Unet", "text_embeds", shape=[2, 768])),
    "vocabulary_has_the_second_encoders_pad": (XL, vocabulary(lambda words: words.pop("!"))),
    "t5s_tokenizer_has_known_steps": (SD3, t5_tokenizer(
        lambda found: found.update(normalizer={"type": "Sequence", "normalizers": [
            {"type": "Strip"}]}))),
    "t5s_tokenizer_adds_a_space": (SD3, t5_tokenizer(
        lambda found: found.update(pre_tokenizer={
            "type": "Metaspace", "prepend_scheme": "always"}))),
    "t5s_tokenizer_is_unigram": (SD3, t5_tokenizer(
        lambda found: found["model"].update(vocab={"a": 1}))),
    "metadata_can_be_read": (SD, ruined("Unet", "metadata.json", b"{}")),
    "metadata_shows_the_true_shapes": (SD, ruined(
        "VAEEncoder", "metadata.json", old=b"64, 64", new=b"96, 64")),
    "histogram_tells_the_attention": (SD, ruined(
        "Unet", "metadata.json", old=b'"Fill"', new=b'"Ios16.einsum"')),
    "controlnets_have_the_unets_attention": (CN, ruined(
        "controlnet/NetA", "metadata.json", old=b'"Fill"', new=b'"Ios16.einsum"')),
    "predicts_noise": (SD, says(prediction_type="v_prediction")),
    "schedule_is_the_built_in_one": (SD, says(scheduler={"beta_schedule": "linear"})),
    "steps_are_shifted_by_three": (SD3, says(scheduler={"use_dynamic_shifting": True})),
    "scale_factor_is_the_familys": (XL, says(scale_factor=0.18215)),
    "prompts_are_padded_with_the_end_token": (SD, says(pad_token="!")),
    "guidance_is_at_least_one": (XL, draw(guidance=0.0)),
    "a_refiner_is_used_unasked": (REFINER, all_of()),
    "batch_is_two": (XL, batch(1, "Unet")),
    "text_encoders_give_fp32": (SD, port("TextEncoder", "last_hidden_state", dtype="Float16")),
    "t5_has_its_tokenizer": (SD3, lose("tokenizer.json")),
    "residuals_meet": (CN, add("controlnet/NetA", "outputs", "more", [2, 4, 8, 8])),
}


@pytest.mark.parametrize(("attention", "size", "found"), [
    ("split_einsum_v2", 2_586_000_000, ["UnetChunk2.mlmodelc/weights/weight.bin: found 2.6 GB, "
     "expected 1.0 GB or less, with more chunks (chunk=) or fewer bits (quant=)"]),
    ("split_einsum", 1_000_000_000, []), ("original", 2_586_000_000, []),
])
def test_chunks_that_are_too_large_for_the_neural_engine_are_a_warning(
    attention, size, found, tmp_path,
):
    bundle = SmallBundle("sd-chunks")
    all_of(says(attention=attention), weighs("UnetChunk2", size))(bundle)

    said = [str(each) for each in violations(bundle.write(tmp_path / "bundle"))
            if each.rule == "models_fit_the_neural_engine"]

    assert [line.splitlines()[0] for line in said] == [f"warning: {line}" for line in found]


def broken(scenario, change, folder):
    bundle = SmallBundle(scenario)
    change(bundle)
    return {violation.rule for violation in violations(bundle.write(folder))}


@pytest.mark.parametrize("rule", MORE)
def test_a_bundle_breaks_the_rule_that_is_meant(rule, tmp_path):
    assert rule in broken(*MORE[rule], tmp_path / "bundle")


def test_every_rule_is_broken_by_some_bundle(tmp_path):
    found = set(MORE)
    for position, (scenario, change, _) in enumerate(CHANGES.values()):
        found |= broken(scenario, change, tmp_path / str(position))

    assert {rule.name for rule in RULES} - found == set()
    assert set(MORE) <= {rule.name for rule in RULES}


NINE = port("Unet", "sample", shape=[2, 9, 8, 8])


@pytest.mark.parametrize(("scenario", "change", "rule"), [
    (SD, NINE, "unets_outputs_are_like_sample"),
    (XL, all_of(copy("Unet", "ControlledUnet")), "only_sd_has_controlnets"),
    (SD3, port(TRANSFORMER, "pooled_text_embeddings", shape=[2, 64, 1, 1]),
     "transformer_takes_the_built_in_widths"),
])
def test_what_the_checkpoint_is_stops_no_build_of_it(scenario, change, rule, tmp_path):
    """In a bundle that says of which components it was built, it is a warning."""
    family = {SD: "sd", XL: "sdxl", SD3: "sd3"}[scenario]
    levels = []
    for name, fields in (("foreign", {}), ("built", {"family": family, "components": {}})):
        bundle = SmallBundle(scenario)
        all_of(change, says(**fields))(bundle)
        found = violations(bundle.write(tmp_path / name))
        levels.append({violation.level for violation in found if violation.rule == rule})

    assert levels == [{"error"}, {"warning"}]


def test_a_host_does_not_run_what_stops_no_build(tmp_path):
    bundle = SmallBundle(SD)
    all_of(NINE, says(family="sd", components={}))(bundle)

    found = verdicts(open_bundle(bundle.write(tmp_path / "bundle")))

    assert {verdict.runs for verdict in found if verdict.host == "Apple's Swift package"} == {"no"}
