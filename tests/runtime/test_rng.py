"""Random numbers, bit for bit as hosts draw them."""

import importlib

import numpy as np
import pytest
import torch

from sdbuild.bundle.hosts import HOSTS
from tests.runtime import swift


def stream(name, seed):
    return importlib.import_module(f"sdbuild.runtime.rng.{name}").Stream(seed)


def name(case):
    return f"{case['rng']}-{case['seed']}-{'x'.join(map(str, case['shape']))}"


@pytest.mark.parametrize("case", swift.data("rng"), ids=name)
def test_the_numbers_of_the_swift_package_are_drawn_bit_for_bit(case):
    """Those of arrays, also where their count is no multiple of 16, and single ones after them."""
    noise = stream(HOSTS["swift"].rngs[case["rng"]], case["seed"])

    first, second = (noise.array(case["shape"]) for _ in range(2))

    assert first.shape == tuple(case["shape"])
    assert first.ravel()[:16].tolist() == case["first16"]
    assert first.ravel()[-16:].tolist() == case["last16"]
    assert np.abs(first).sum() == pytest.approx(case["sum_abs"], rel=1e-12)
    assert second.ravel()[:4].tolist() == case["second_array_first4"]
    assert noise.singles(1)[0] == case["then_nextNormal"]


def test_the_torch_of_diffusers_is_pytorchs_own():
    noise = stream(HOSTS["diffusers"].rngs["torch"], 7)
    generator = torch.Generator().manual_seed(7)

    assert (noise.array((1, 4, 3, 5)) == torch.randn(1, 4, 3, 5, generator=generator).numpy()).all()


def test_the_swift_packages_torch_is_pytorchs_but_for_an_odd_tail():
    """apple/ml-stable-diffusion draws the last 16 of a count such as 60 from other bits."""
    ours = stream("swift_torch", 7).array((60,))
    theirs = torch.randn(60, generator=torch.Generator().manual_seed(7)).numpy()

    assert np.abs(ours[:44] - theirs[:44]).max() < 1e-6
    assert np.abs(ours[44:] - theirs[44:]).max() > 0.1


def test_nvidias_numbers_are_those_of_a_gpu():
    """`torch.manual_seed(0); torch.randn(12, device="cuda")`, as rounded by PyTorch."""
    found = stream("nvidia", 0).array((12,))

    assert found[:4].round(4).tolist() == [-0.9247, -0.4253, -2.6438, 0.1452]


@pytest.mark.parametrize("rng", ["numpy", "nvidia", "swift_torch"])
def test_single_numbers_do_not_depend_on_how_many_are_asked_for_at_once(rng):
    at_once, one_by_one = stream(rng, 5), stream(rng, 5)

    found = np.concatenate([one_by_one.singles(1) for _ in range(9)])

    assert at_once.singles(9).tolist() == found.tolist()
