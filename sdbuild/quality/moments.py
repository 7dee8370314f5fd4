"""Moments: what a network is given in use, on the way from prompts to images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from sdbuild.base.progress import each
from sdbuild.bundle.manifest import Bundle
from sdbuild.bundle.request import Request
from sdbuild.runtime.drawing import OneAtATime
from sdbuild.runtime.networks import ENCODERS
from sdbuild.runtime.pipeline import Pipeline
from sdbuild.runtime.predictor import Predictor

Moment = Mapping[str, np.ndarray]
"""The inputs of a network, by name; a denoiser's are of the negative prompt, then of the prompt."""

Load = Callable[[str], Predictor]
"""Gives the network of a component by its name."""


def moments(
    bundle: Bundle, requests: Sequence[Request], load: Load, component: str, count: int
) -> list[Moment]:
    """Returns what a component is given while the images of some requests are made: a text encoder
    each prompt once, a denoiser `count` steps of each image.

    Args:
        bundle: of no models.
    """
    if component in ENCODERS[bundle.family]:
        return _of_encoder(bundle, requests, load, component)
    return _of_denoiser(bundle, requests, load, component, count)


def _of_encoder(
    bundle: Bundle, requests: Sequence[Request], load: Load, component: str
) -> list[Moment]:
    prompts = Pipeline(bundle, parts=OneAtATime(load)).prompts
    length, first = prompts.length(component), requests[0]
    texts = dict.fromkeys(text for request in requests for text in (request.negative,
                                                                    request.prompt))
    tokenizer = prompts.tokenizer(first, component)
    return [{"input_ids": np.array([tokenizer.ids(text, length)], np.float32)} for text in texts]


def _of_denoiser(
    bundle: Bundle, requests: Sequence[Request], load: Load, component: str, count: int
) -> list[Moment]:
    kept: list[Moment] = []
    loaded = OneAtATime(load)
    pipeline = Pipeline(bundle, parts=loaded)
    conditions = [pipeline.conditions(request) for request in requests]
    recorder = Recorder(loaded(component), kept)
    drawing = Pipeline(bundle, parts=lambda name: recorder)
    for number, (request, condition) in enumerate(each(
            zip(requests, conditions, strict=True), "images", len(requests))):
        start = next(drawing.starts(request))
        recorder.begin(spread(len(start.schedule.timesteps), count, number))
        drawing.denoise(condition, start, request)
    return kept


class Recorder:
    """A predictor that passes on what another computes, and keeps the inputs of some calls."""

    def __init__(self, predictor: Predictor, kept: list[Moment]) -> None:
        self._predictor, self._kept = predictor, kept
        self.shapes = predictor.shapes
        self._wanted: frozenset[int] = frozenset()
        self._calls = 0

    def begin(self, wanted: frozenset[int]) -> None:
        """Counts calls from zero again; those with the numbers `wanted` are kept."""
        self._wanted, self._calls = wanted, 0

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the outputs for some inputs."""
        if self._calls in self._wanted:
            self._kept.append({name: np.array(array) for name, array in inputs.items()})
        self._calls += 1
        return self._predictor.predict(inputs)


def spread(steps: int, count: int, number: int) -> frozenset[int]:
    """Returns `count` steps of an image, one of each of as many equal parts; of the image with
    another number others, so that all steps take their turns."""
    edges = [steps * at // count for at in range(count + 1)]
    return frozenset(low + number % (high - low)
                     for low, high in pairwise(edges) if high > low)
