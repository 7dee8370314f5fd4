"""The safety checker as one graph: the verdicts of diffusers' own class, in fp32."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints import normalize
from sdbuild.families import STABLE_DIFFUSION
from sdbuild.models import network
from tests.checkers import NEVER, embeddings, published, seen, small_checker, verdicts

pytestmark = pytest.mark.filterwarnings("ignore")
COMPONENT = STABLE_DIFFUSION.component("safety_checker")


def architecture(checker, **changed):
    config = checker.config.to_dict()
    config |= {"architectures": [type(checker).__name__],
               "vision_config": config["vision_config"] | changed}
    found = normalize.architecture("safety_checker", config)
    return network.Architecture(class_name=found["class"], config=found["config"])


def ours(checker, folder):
    folder.mkdir(exist_ok=True)
    save_file(published(checker), folder / "weights.safetensors")
    return network.weighted(COMPONENT, architecture(checker), folder / "weights.safetensors")


def ask(checker, picture, adjustment=0.0, images=None):
    images = torch.ones(1, 512, 512, 3) if images is None else images
    with torch.inference_mode():
        return checker(seen([picture]), images, torch.tensor([adjustment]))


@pytest.fixture(scope="module")
def pictures():
    """Colour gradients of many kinds."""
    rng = np.random.default_rng(0)
    coarse = (Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)) for _ in range(24))
    return [each.resize((96, 80), Image.Resampling.BICUBIC) for each in coarse]


@pytest.fixture
def checker():
    return small_checker()


@torch.no_grad()
def test_the_verdicts_are_those_of_diffusers(checker, pictures, tmp_path):
    """Random concepts, and thresholds that about half of the pictures reach."""
    cosines = embeddings(checker, pictures) @ torch.nn.functional.normalize(
        checker.concept_embeds).T
    checker.concept_embeds_weights[:] = cosines.quantile(0.96, dim=0)
    network_of_ours = ours(checker, tmp_path)

    found = [bool(ask(network_of_ours, picture)[1]) for picture in pictures]

    assert found == verdicts(checker, pictures)
    assert 4 < sum(found) < 20


@torch.no_grad()
def test_the_scores_are_cosines_less_thresholds(checker, pictures, tmp_path):
    checker.concept_embeds_weights.uniform_(0, 0.3)
    concepts = checker.concept_embeds.double().numpy()
    picture = embeddings(checker, pictures[:1]).double().numpy()
    cosines = picture @ (concepts / np.linalg.norm(concepts, axis=1, keepdims=True)).T

    scores = ask(ours(checker, tmp_path), pictures[0])[2]

    wanted = cosines - checker.concept_embeds_weights.double().numpy()
    np.testing.assert_allclose(scores.numpy(), wanted, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("above, is_flagged", [(-0.004, False), (0.0003, False), (0.0007, True)])
def test_a_concept_is_found_where_its_score_rounds_to_more_than_zero(
    checker, pictures, tmp_path, above, is_flagged,
):
    checker.concept_embeds[3] = embeddings(checker, pictures[:1])[0] * 5
    checker.concept_embeds_weights[3] = 1 - above

    _, found, _ = ask(ours(checker, tmp_path), pictures[0])

    assert bool(found) is is_flagged
    assert verdicts(checker, pictures[:1]) == [is_flagged]


@torch.no_grad()
@pytest.mark.parametrize("above, is_flagged", [(0.0003, False), (0.0007, True)])
def test_special_care_lowers_every_threshold(checker, pictures, tmp_path, above, is_flagged):
    """A concept 0.005 below its threshold counts if a special one is above its own."""
    embedding = embeddings(checker, pictures[:1])[0]
    checker.concept_embeds[3] = checker.special_care_embeds[1] = embedding
    checker.concept_embeds_weights[3] = 1.005
    checker.special_care_embeds_weights[1] = 1 - above

    _, found, scores = ask(ours(checker, tmp_path), pictures[0])

    assert bool(found) is is_flagged
    assert verdicts(checker, pictures[:1]) == [is_flagged]
    assert scores[0, 3].item() == pytest.approx(0.005 if is_flagged else -0.005, abs=1e-5)


def test_a_flagged_picture_is_black_and_another_as_it_was(checker, pictures, tmp_path):
    images = torch.rand(1, 512, 512, 3)
    network_of_ours = ours(checker, tmp_path)

    clean, _, _ = ask(network_of_ours, pictures[0], images=images)
    black, found, _ = ask(network_of_ours, pictures[0], images=images, adjustment=NEVER + 2)

    assert torch.equal(clean, images)
    assert found.shape == (1, 1, 1, 1) and found.item() == 1
    assert not black.any()


def test_an_adjustment_is_added_to_every_score(checker, pictures, tmp_path):
    network_of_ours = ours(checker, tmp_path)

    plain, adjusted = (ask(network_of_ours, pictures[0], by)[2] for by in (0.0, 0.25))

    torch.testing.assert_close(adjusted, plain + 0.25)


def test_a_checker_of_another_size_is_refused():
    with pytest.raises(SourceError, match="sees 336 pixels a side, expected 224"):
        network.weightless(COMPONENT, architecture(small_checker(), image_size=336))


def test_a_network_that_is_no_checker_is_refused():
    other = network.Architecture(class_name="CLIPVisionModel", config={})

    with pytest.raises(SourceError, match="CLIPVisionModel, expected StableDiffusionSafety"):
        network.weightless(COMPONENT, other)


def test_the_samples_of_parity_lie_on_both_sides_of_the_threshold(checker, tmp_path):
    rng = torch.Generator().manual_seed(0)
    samples = network.module(COMPONENT).samples(COMPONENT, {}, {}, rng)
    network_of_ours = ours(checker, tmp_path)

    with torch.inference_mode():
        found = {bool(network_of_ours(*sample)[1]) for sample in samples}

    assert found == {True, False}
