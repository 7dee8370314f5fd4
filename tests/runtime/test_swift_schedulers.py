"""The schedulers of Apple's Swift package, from state to state."""

import numpy as np
import pytest
import torch

from sdbuild.base.errors import BundleError
from sdbuild.runtime.schedulers import Asked
from sdbuild.runtime.schedulers.swift import schedule
from tests.runtime import swift

RUNS = swift.data("schedulers")
PLACES = np.arange(64)
FIRST = ((37 * PLACES**2 + 11 * PLACES) % 97 - 48) / 32


def tensor(values):
    return torch.from_numpy(np.asarray(values, np.float32).reshape(1, 4, 4, 4))


def prediction(step):
    return tensor(((31 * step + 17 * PLACES**2 + 7 * PLACES) % 101 - 50) / 32)


def made(run, steps, strength=None):
    name, _, spacing = run.partition("_")
    is_karras = spacing == "karras"
    return schedule(Asked(
        scheduler="pndm" if name == "pndm" else "dpm", config={}, steps=steps, strength=strength,
        spacing="" if is_karras else spacing, sigmas="karras" if is_karras else "",
    ), torch.Generator())


@pytest.mark.parametrize("name", RUNS)
def test_states_are_those_of_the_swift_package(name):
    run = RUNS[name]
    is_image = name.startswith("i2i")
    steps = made(run["scheduler"], run["steps"], run["strength"] if is_image else None)
    assert list(steps.timesteps) == run["timesteps"]
    sample = tensor(FIRST)
    if is_image:
        sample = steps.noised(prediction(1000), sample)
        assert np.abs(sample.numpy().ravel() - swift.floats(run["after_add_noise_bits"])
                      ).max() < 1e-5

    states = []
    for index in range(len(steps.timesteps)):
        sample = steps.step(prediction(index), index, sample)
        states.append((sample, steps.result(sample)))

    kept = states if len(states) <= 9 else states[:6] + states[-3:]
    assert len(kept) == len(run["states"])
    for found, wanted in zip(kept, run["states"], strict=True):
        for ours, name in zip(found, ("sample_bits", "denoised_bits"), strict=True):
            theirs = swift.floats(wanted[name])
            assert np.abs(ours.numpy().ravel() - theirs).max() <= 1e-4 * max(
                1, np.abs(theirs).max())


@pytest.mark.parametrize("name", [
    crash["run"] for crash in swift.data("crashes")
    if "flow" not in crash["run"] and not crash["run"].endswith(("-999", "-1000"))])
def test_what_crashes_there_is_refused_with_a_word(name):
    kind, run, steps, *strength = name.split("-")

    with pytest.raises(BundleError, match="Apple's Swift package crashes"):
        made(run, int(steps), float(strength[0]) if kind == "i2i" else None)


def test_the_steps_of_a_flow_are_at_the_timesteps_that_the_swift_package_sends():
    """As it was recorded: shift 3, four steps, whatever the checkpoint's own scheduler says."""
    steps = schedule(Asked(scheduler="flow_euler", config={"shift": 1.0}, steps=4),
                     torch.Generator())

    assert [float(t) for t in steps.timesteps] == pytest.approx(
        [1000, 857.69, 602.15, 8.93], abs=0.005)


@pytest.mark.parametrize("asked", [{"steps": 1}, {"steps": 4, "strength": 0.5}])
def test_what_crashes_the_swift_package_with_a_flow_is_refused(asked):
    with pytest.raises(BundleError, match="Apple's Swift package crashes"):
        schedule(Asked(scheduler="flow_euler", config={}, **asked), torch.Generator())
