"""observe: what a moment is for programs of either batch, and the noise that it is measured by."""

from types import SimpleNamespace

import numpy as np
import pytest

from sdbuild.steps.observe import _noise, _samples


def moment(rng):
    return {"sample": rng.standard_normal((2, 4, 8, 8)), "timestep": np.full(2, 981.0)}


@pytest.mark.parametrize("batch", [1, 2])
def test_a_moment_is_the_negative_prompts_sample_and_the_prompts_whatever_the_batch(batch):
    given = moment(np.random.default_rng(0))
    model = SimpleNamespace(input_shapes={"sample": (batch, 4, 8, 8), "timestep": (batch,)})

    found = _samples(model, given)

    assert [len(part["sample"]) for part in found] == [batch] * (2 // batch)
    for name, array in given.items():
        assert np.array_equal(np.concatenate([part[name] for part in found]), array)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_the_noise_is_guided_as_images_are(guidance):
    without, found = np.random.default_rng(0).standard_normal((2, 4, 8, 8))
    whole = [{"noise_pred": np.stack([without, found])}]
    halves = [{"noise_pred": without[None]}, {"noise_pred": found[None]}]

    expected = found if guidance == 1 else without + guidance * (found - without)
    np.testing.assert_allclose(_noise(guidance, whole)[0], expected)
    np.testing.assert_allclose(_noise(guidance, halves)[0], expected)
