"""Previews: the picture as it is after a step, as far as the scheduler can tell."""

import sys
from dataclasses import replace

import pytest
import torch

from sdbuild.base.errors import SDBuildError
from sdbuild.bundle.request import Request
from sdbuild.bundle.schedulers import SCHEDULERS
from sdbuild.runtime import files
from sdbuild.runtime import generate as runtime
from sdbuild.runtime.schedulers import Asked, diffusers, swift
from tests import terminal
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


def test_an_interrupted_image_leaves_no_preview_and_other_files_stay(small, tmp_path, monkeypatch):
    pipeline = ours(small[0])
    monkeypatch.setattr(runtime, "Pipeline", lambda *_: pipeline)
    (tmp_path / "mine-preview.png").write_bytes(b"mine")
    list(runtime.generate(pipeline.bundle, REQUEST, tmp_path / "mine.png"))
    save = files.save

    def interrupted(picture, path, *more):
        save(picture, path, *more)
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(runtime.generate(pipeline.bundle, REQUEST, tmp_path / "a.png", previews=2))

    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine-preview.png", "mine.png"]


def test_a_terminal_shows_each_path_alone_in_its_line(small, tmp_path, monkeypatch):
    pipeline, screen = ours(small[0]), terminal.Terminal()
    monkeypatch.setattr(runtime, "Pipeline", lambda *_: pipeline)
    monkeypatch.setattr(sys, "stderr", screen.stream)
    monkeypatch.setattr(sys, "__stderr__", screen.stream)

    for path in runtime.generate(pipeline.bundle, replace(REQUEST, count=2), tmp_path / "a.png"):
        print(path.name, file=screen.stream, flush=True)

    first, *lines = terminal.lines(screen.written())
    assert "0/12 [" in first
    assert [line for line in lines if "png" in line] == ["a-1.png", "a-2.png", "a.png"]


def test_what_takes_the_place_of_something_and_what_has_no_effect_is_said(
    small, tmp_path, monkeypatch, caplog,
):
    pipeline = ours(small[0])
    monkeypatch.setattr(runtime, "Pipeline", lambda *_: pipeline)
    (tmp_path / "a.png").write_bytes(b"before")

    list(runtime.generate(pipeline.bundle, REQUEST, tmp_path / "a.png", previews=6))

    assert [record.getMessage().removeprefix(f"{tmp_path}/") for record in caplog.records] == [
        "warning: previews=6: no preview of 6 steps", "a.png: the one that was there is replaced"]


def test_a_contact_sheet_that_takes_the_place_of_an_image_says_so(
        small, tmp_path, monkeypatch, caplog):
    pipeline = ours(small[0])
    monkeypatch.setattr(runtime, "Pipeline", lambda *_: pipeline)
    (tmp_path / "a.png").write_bytes(b"before")

    list(runtime.generate(pipeline.bundle, replace(REQUEST, count=2), tmp_path / "a.png"))

    assert [record.getMessage().removeprefix(f"{tmp_path}/") for record in caplog.records] == [
        "a.png: the one that was there is replaced"]


def test_two_traces_are_not_mixed_and_nothing_is_removed(small, tmp_path, monkeypatch):
    pipeline = ours(small[0])
    monkeypatch.setattr(runtime, "Pipeline", lambda *_: pipeline)
    list(runtime.generate(pipeline.bundle, REQUEST, tmp_path / "a.png", trace=tmp_path / "trace"))
    before = sorted((tmp_path / "trace").iterdir())

    with pytest.raises(SDBuildError, match="trace: there is a trace in it already"):
        list(runtime.generate(pipeline.bundle, replace(REQUEST, steps=1), tmp_path / "b.png",
                              trace=tmp_path / "trace"))

    assert sorted((tmp_path / "trace").iterdir()) == before and len(before) == 4 + 2 * 6
    assert not (tmp_path / "b.png").exists()
