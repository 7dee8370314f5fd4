"""A bundle with a safety checker: built from a checkpoint that has one, checked by the contract,
and black where diffusers' own class would flag a picture."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from sdbuild.bundle.contract import violations
from sdbuild.bundle.manifest import load_bundle
from sdbuild.mil.files.coremldata import unpack_description
from sdbuild.mil.files.read import read_model
from sdbuild.runtime.predictor import load
from sdbuild.store import Store
from tests.checkers import embeddings, seen, small_checker, verdicts
from tests.e2e.test_contract import Broken
from tests.e2e.test_generate import generate, pixels

pytestmark = pytest.mark.filterwarnings("ignore")
COMPONENTS = "components=text_encoder,unet,vae_decoder,safety_checker"
WORDS = ("--prompt=a fox", "--seed=1", "--count=2", "--steps=2")


@pytest.fixture(scope="module")
def unchecked(built, tmp_path_factory):
    """Two pictures as they are without a checker."""
    files = generate(built.bundle, tmp_path_factory.mktemp("unchecked") / "fox.png", *WORDS)
    return [Image.open(path) for path in files[:2]]


@pytest.fixture(scope="module")
def checker(unchecked):
    """diffusers' checker with a concept that is in the first picture and not in the second."""
    checker = small_checker()
    first, second = embeddings(checker, unchecked)
    concept = torch.nn.functional.normalize(first - second, dim=0)
    assert first @ concept > 0.02, "too near each other for a threshold between them in fp16"
    with torch.no_grad():
        checker.concept_embeds[3], checker.concept_embeds_weights[3] = concept, 0
    assert verdicts(checker, unchecked) == [True, False]
    return checker


@pytest.fixture(scope="module")
def own_store(built, tmp_path_factory):
    """The built store, for the tests here to add to."""
    return built.copy(tmp_path_factory.mktemp("checked"))


@pytest.fixture(scope="module")
def checked(own_store, checker, checkpoint):
    """The bundle with the checker, and what its making printed."""
    source = shutil.copytree(checkpoint, own_store.folder / "checkpoint")
    checker.save_pretrained(source / "safety_checker")
    words = (COMPONENTS, "model=tiny-emoji", f"source={source}")
    ran = own_store.ran("build", *words)
    return own_store.bundle, words, ran


@pytest.fixture(scope="module")
def drawn(checked, tmp_path_factory):
    """The two pictures, their sheet and their report, drawn with the checker."""
    import subprocess
    import sys

    out = tmp_path_factory.mktemp("drawn") / "fox.png"
    command = [sys.executable, "-m", "sdbuild", "generate", str(checked[0]), f"--out={out}",
               f"--report={out.with_suffix('.json')}", *WORDS]
    return out, subprocess.run(command, capture_output=True, text=True, check=True)


@pytest.mark.slow
def test_only_the_checker_and_the_bundle_are_made_anew(checked):
    _, _, ran = checked

    assert ran == {f"{kind}:safety_checker" for kind in
                   ("download", "trace", "lower", "convert", "compile")} | {"bundle"}


def test_the_bundle_breaks_no_rule_but_the_missing_encoder(checked):
    bundle, _, _ = checked

    assert [found.rule for found in violations(bundle)] == ["has_a_vae_encoder"]


def test_its_ports_are_those_that_hosts_have_met(checked):
    """Names, shapes and types of Apple's own conversions, at 512 pixels."""
    bundle, _, _ = checked
    data = (bundle / "SafetyChecker.mlmodelc" / "coremldata.bin").read_bytes()
    _, description = unpack_description(data, "")
    fp16, fp32 = 65552, 65568

    def ports(features):
        return {f.name: (tuple(f.type.multiArrayType.shape), f.type.multiArrayType.dataType)
                for f in features}

    assert ports(description.input) == {
        "clip_input": ((1, 3, 224, 224), fp16), "images": ((1, 512, 512, 3), fp16),
        "adjustment": ((1,), fp16),
    }
    assert ports(description.output) == {
        "filtered_images": ((1, 512, 512, 3), fp32), "has_nsfw_concepts": ((1, 1, 1, 1), fp32),
        "concept_scores": ((1, 17), fp32),
    }


def test_a_checker_for_pictures_of_768_pixels_breaks_the_contract(checked, tmp_path):
    broken = Broken(checked[0], tmp_path / "bundle")
    broken.port("SafetyChecker", "images", shape=(1, 768, 768, 3))

    found, *others = violations(broken.folder)

    assert found.rule == "safety_checker_takes_512_pixels"
    assert (found.found, found.expected) == ("(1, 768, 768, 3)", "(1, 512, 512, 3)")
    assert found.level == "error"
    assert "metadata_shows_the_true_shapes" in {other.rule for other in others}


def test_the_flagged_picture_is_black_and_the_other_untouched(drawn, unchecked):
    out, _ = drawn

    assert not pixels(out.with_stem("fox-1")).any()
    assert (pixels(out.with_stem("fox-2")) == np.asarray(unchecked[1])).all()


def test_the_command_names_the_flagged_picture(drawn):
    out, done = drawn

    flagged = out.with_stem("fox-1")

    assert f"{flagged}: black, as the bundle's safety checker flags it\n" in done.stderr
    assert "fox-2" not in done.stderr
    assert done.stdout.splitlines()[-1] == str(out)


def test_pictures_and_report_carry_the_verdict(drawn):
    out, _ = drawn
    found = [Image.open(path).text["safety_checker"]
             for path in (out.with_stem("fox-1"), out.with_stem("fox-2"), out)]
    report = json.loads(out.with_suffix(".json").read_text())

    assert found == ["flagged 1 of 1", "flagged 0 of 1", "flagged 1 of 2"]
    assert [picture["is_flagged"] for picture in report["pictures"]] == [True, False]
    assert all(picture["seconds"]["check"] > 0 for picture in report["pictures"])


def test_without_a_checker_nothing_is_said_of_one(unchecked):
    assert all("safety_checker" not in picture.text for picture in unchecked)


@torch.no_grad()
def test_the_compiled_scores_are_near_those_of_diffusers(checked, checker, unchecked):
    """Its embedding is fp16's, and nothing after that adds to the error."""
    chain = load(load_bundle(checked[0]).models["safety_checker"], "portable", "original")
    concepts = torch.nn.functional.normalize(checker.concept_embeds)
    wanted = embeddings(checker, unchecked) @ concepts.T - checker.concept_embeds_weights

    for picture, scores in zip(seen(unchecked), wanted.numpy(), strict=True):
        found = chain.predict({
            "clip_input": picture[None].numpy(), "adjustment": np.zeros(1, np.float32),
            "images": np.full((1, 512, 512, 3), np.nan, np.float32),  # as memory may hold
        })

        np.testing.assert_allclose(found["concept_scores"][0], scores, atol=1e-3)


def test_cosines_and_thresholds_are_computed_in_fp32(checked):
    model = read_model(checked[0] / "SafetyChecker.mlmodelc")
    (block,) = [f.block for f in model.program.functions.values()]
    kinds = [op.type for op in block.operations]
    compared = block.operations[kinds.index("reduce_l2_norm") - 1:]

    found = {(op.type, op.outputs[0].type.dtype) for op in compared
             if op.type in ("concat", "reduce_l2_norm", "real_div", "matmul", "sub", "add")}

    assert ("matmul", "fp32") in found
    assert {dtype for kind, dtype in found if kind != "sub"} == {"fp32"}


def test_a_direct_conversion_gives_the_same_bytes(checked, own_store):
    """The step after it has nothing to do."""
    ran = own_store.ran("compile:safety_checker", *checked[1], "lower=direct")

    assert ran == {"convert:safety_checker"}


def test_its_trace_does_not_depend_on_the_size_of_the_picture(checked, own_store):
    why = own_store.why("build", *checked[1], "size=256")

    assert why["trace:safety_checker"] == why["compile:safety_checker"] == "up to date"
    assert "params.height_px 128 → 256" in why["trace:unet"]


def test_its_palettes_leave_the_concepts_as_they_are(checked, own_store):
    own_store.doit("palettize:safety_checker", *checked[1], "palettize=safety_checker", "quant=4")

    (record,) = (r for r in Store(own_store.cache).records()
                 if r.step == "palettize:safety_checker")
    names = [tensor["name"] for tensor in record.facts["tensors"]]

    assert any("mlp_fc1_weight" in name for name in names)
    assert not any("concept_embeds" in name for name in names)


def test_a_checkpoint_without_a_checker_says_how_to_build_it(project):
    printed = project.doit("build", COMPONENTS, status=1)

    assert "tiny-emoji: no safety_checker, only scheduler, text_encoder, tokenizer, unet" in printed
    assert "can be left out: components=text_encoder,unet,vae_decoder\n" in printed
