"""Previews: the picture as it is after a step, as far as the scheduler can tell."""

from dataclasses import replace

import pytest
import torch

from sdbuild.bundle.request import Request
from sdbuild.bundle.schedulers import SCHEDULERS
from sdbuild.runtime import files
from sdbuild.runtime import generate as runtime
from sdbuild.runtime.schedulers import Asked, diffusers, swift
from tests.runtime.swift import psnr_db
from tests.runtime.test_diffusers_pipelines import FOX, SCHEDULE, ours, small, vae

__all__ = ["small", "vae"]
pytestmark = pytest.mark.filterwarnings("ignore")
UNTOLD = {"deis", "pndm", "tcd"}
"""Of diffusers' schedulers, those that tell nothing but the next sample."""
REQUEST = Request(**{**FOX, "scheduler": "euler", "steps": 6})


@pytest.mark.parametrize("module, name", [
    *((diffusers, name) for name, scheduler in SCHEDULERS.items()
      if not scheduler.is_flow and name not in UNTOLD), (swift, "dpm"), (swift, "pndm")])
def test_where_the_noise_is_predicted_as_it_is_the_clean_sample_is_what_was_there(module, name):
    generator = torch.Generator().manual_seed(1)
    clean, noise = (torch.randn(1, 4, 8, 8, generator=generator) for _ in range(2))
    schedule = module.schedule(Asked(scheduler=name, config=SCHEDULE, steps=10), generator)

    stepped = schedule.step(noise, 0, schedule.noised(clean, noise))

    assert torch.allclose(schedule.clean(stepped), clean, atol=1e-4)


@pytest.mark.parametrize("name", sorted(UNTOLD))
def test_a_scheduler_that_tells_nothing_shows_the_sample(name):
    schedule = diffusers.schedule(Asked(scheduler=name, config=SCHEDULE, steps=10),
                                  torch.Generator())
    stepped = schedule.step(torch.ones(1, 4, 8, 8), 0, torch.ones(1, 4, 8, 8))

    assert schedule.clean(stepped) is stepped


def test_pictures_come_nearer_to_the_last_one(small):
    seen = {}

    (result,) = ours(small[0]).draw(REQUEST, watch=lambda step, picture: seen.update(
        {step: picture()}))

    assert list(seen) == [1, 2, 3, 4, 5]
    assert psnr_db(seen[5], result.image) > psnr_db(seen[1], result.image)


def test_they_are_written_every_so_many_steps_and_gone_with_the_picture(
    small, tmp_path, monkeypatch,
):
    written, save = [], files.save
    monkeypatch.setattr(files, "save", lambda picture, path, *more: (
        written.append(path.name), save(picture, path, *more)))
    pipeline = ours(small[0])
    monkeypatch.setattr(runtime, "Pipeline", lambda *_: pipeline)

    list(runtime.generate(
        pipeline.bundle, replace(REQUEST, count=2), tmp_path / "a.png", previews=2))

    one = ["a-preview.png"] * 2
    assert written == [*one, "a-1.png", *one, "a-2.png", "a.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-1.png", "a-2.png", "a.png"]
