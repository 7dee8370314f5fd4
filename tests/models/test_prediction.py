"""A velocity becomes the noise that diffusers' schedulers work with, at any timestep."""

import shutil
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from sdbuild.base.errors import SourceError
from sdbuild.families import Component, Port
from sdbuild.mil.execute.execute import Executor
from sdbuild.mil.files.package import write_package
from sdbuild.mil.files.read import read_model
from sdbuild.mil.ir.decode import decode_program
from sdbuild.models.prediction import to_noise

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sdbuild.lowering import coreml

pytestmark = pytest.mark.filterwarnings("ignore")
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
      "num_train_timesteps": 1000}
SCHEDULES = {
    "Stable Diffusion": SD,
    "cosine": SD | {"beta_schedule": "squaredcos_cap_v2"},
    "trained": {"trained_betas": [0.01, 0.02, 0.03, 0.05]},
    "ends in noise alone": SD | {"rescale_betas_zero_snr": True},
}
SHAPE = (2, 4, 6, 8)


def converter(**schedule):
    return to_noise({"type": "v_prediction", "schedule": schedule})


def example(schedule, timestep):
    """A noisy sample, its velocity and its noise, as diffusers makes them."""
    rng = torch.Generator().manual_seed(timestep)
    picture, noise = (torch.randn(SHAPE, generator=rng) for _ in range(2))
    scheduler, steps = DDIMScheduler(**schedule), torch.tensor([timestep])
    sample = scheduler.add_noise(picture, noise, steps)
    return sample, scheduler.get_velocity(picture, noise, steps), noise


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("place", [0, 0.3, 0.7, 1])
def test_the_noise_is_what_diffusers_put_into_the_sample(name, place):
    schedule = SCHEDULES[name]
    last = len(DDIMScheduler(**schedule).betas) - 1
    timestep = round(place * last)
    sample, velocity, noise = example(schedule, timestep)

    found = converter(**schedule)(velocity, sample, torch.full((2,), float(timestep)))

    assert torch.allclose(found, noise, atol=1e-5)


@pytest.mark.parametrize("steps", [7, 30])
def test_between_timesteps_it_agrees_with_the_one_scheduler_that_asks_there(steps):
    """Euler's timesteps are fractions, for which it interpolates its sigmas."""
    scheduler = EulerDiscreteScheduler(**SD, timestep_spacing="linspace")
    scheduler.set_timesteps(steps)
    velocity, sample = (torch.randn(SHAPE, generator=torch.Generator().manual_seed(i))
                        for i in range(2))
    convert = converter(**SD)
    assert (scheduler.timesteps % 1 > 0).any()

    for timestep, sigma in zip(scheduler.timesteps, scheduler.sigmas[:-1], strict=True):
        found = convert(velocity, sample, timestep.expand(2).float())

        norm = (1 + sigma**2).sqrt()  # x = picture + sigma * noise, divided by this
        assert torch.allclose(found, (velocity + sigma * sample) / norm, atol=2e-4)


def test_two_timesteps_in_a_batch_are_two_timesteps():
    (a, va, _), (b, vb, _) = example(SD, 981), example(SD, 21)
    convert = converter(**SD)

    both = convert(
        torch.stack([va[0], vb[0]]), torch.stack([a[0], b[0]]), torch.tensor([981., 21.])
    )

    assert torch.equal(both[:1], convert(va[:1], a[:1], torch.tensor([981.])))
    assert torch.equal(both[1:], convert(vb[:1], b[:1], torch.tensor([21.])))


@pytest.mark.parametrize("beyond, nearest", [(-1.0, 0.0), (1000.0, 999.0)])
def test_a_timestep_beyond_the_table_is_the_nearest_in_it(beyond, nearest):
    sample, velocity, _ = example(SD, 500)
    convert = converter(**SD)

    found, wanted = (convert(velocity, sample, torch.full((2,), t)) for t in (beyond, nearest))

    assert torch.equal(found, wanted)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The conversion alone, lowered from the meta device to fp16."""
    ports = [Port(name=n, shape=(), dtype="fp16", meaning="")
             for n in ("velocity", "sample", "timestep")]
    component = Component(
        name="x", bundle_name="X", folder="x", inputs=tuple(ports),
        outputs=(Port(name="noise", shape=(), dtype="fp32", meaning=""),),
    )
    inputs = tuple(torch.zeros(s, device="meta") for s in (SHAPE, SHAPE, (2,)))
    with torch.device("meta"):
        network = converter(**SD)
    program = torch.export.export(network, inputs).run_decompositions({})
    folder = tmp_path_factory.mktemp("compiled")
    spec, file = coreml.lower(program, {}, component, "iOS16")
    write_package(
        folder / "X.mlpackage", specification_version=spec.specificationVersion,
        description=spec.description, program=decode_program(spec.mlProgram),
        weights=shutil.copyfile(file, folder / "weight.bin"),
    )
    return read_model(folder / "X.mlpackage")


@pytest.mark.parametrize("timestep", [1, 21, 501, 981])
def test_in_fp16_it_costs_less_than_the_network_itself(compiled, timestep):
    sample, velocity, noise = example(SD, timestep)

    found = Executor(compiled).predict({
        "velocity": velocity.numpy(), "sample": sample.numpy(),
        "timestep": np.full(2, timestep, np.float32),
    })["noise"]

    rms = np.sqrt(np.mean((found - noise.numpy()) ** 2))
    assert 20 * np.log10(noise.abs().max() / rms) > 75


def test_it_is_made_of_operations_on_floats_alone(compiled):
    """Those with integers run on the CPU, wherever the rest of the network does."""
    found = [o for o in compiled.program.main.block.operations if o.type not in ("const", "cast")]

    assert Counter(o.type for o in found) == {
        "reshape": 1, "clip": 1, "sub": 2, "abs": 1, "relu": 1, "conv": 2, "mul": 2, "add": 1,
    }
    assert {out.type.dtype for o in found for out in o.outputs} == {"fp16"}


@pytest.mark.parametrize("prediction, message", [
    ({"type": "sample", "schedule": SD}, "prediction_type is 'sample', expected epsilon or v_pre"),
    ({"type": "v_prediction", "schedule": SD | {"beta_schedule": "x"}}, "does not make a schedule"),
    ({"type": "v_prediction", "schedule": SD | {"beta_start": "x"}}, "does not make a schedule"),
    ({"type": "v_prediction", "schedule": SD | {"num_train_timesteps": 4000}}, "at most 2048"),
])
def test_what_cannot_be_turned_into_noise_is_refused(prediction, message):
    with pytest.raises(SourceError, match=message):
        to_noise(prediction)
