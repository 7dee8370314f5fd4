"""Draws the pictures of a check, one network in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from PIL import Image

from sdbuild.base.errors import NotFinite
from sdbuild.bundle.manifest import Bundle
from sdbuild.bundle.request import Request
from sdbuild.runtime.pipeline import Pipeline
from sdbuild.runtime.predictor import Predictor


class OneAtATime:
    """Gives networks by the names of their components, and lets go of each before the next."""

    def __init__(self, load: Callable[[str], Predictor]) -> None:
        self._load = load
        self._name = ""
        self._part: Predictor | None = None

    def __call__(self, name: str) -> Predictor:
        """Returns the network of a component; its memory is that of the last one."""
        if self._part is None or name != self._name:
            self._part = None
            self._name, self._part = name, self._load(name)
        return self._part


def draw_each(
    bundle: Bundle, requests: Sequence[Request], load: Callable[[str], Predictor]
) -> Iterator[Image.Image | None]:
    """Yields the first picture of each request, in order; None where it is not finite.

    Args:
        bundle: of no models.
        load: gives a component's network.
    """
    pipeline = Pipeline(bundle, parts=OneAtATime(load))
    for request in requests:
        pipeline.check(request)
    conditions = [pipeline.conditions(request) for request in requests]
    latents = [
        pipeline.denoise(condition, next(pipeline.starts(request)), request)
        for condition, request in zip(conditions, requests, strict=True)
    ]
    for each in latents:
        try:
            yield pipeline.decode(each)
        except NotFinite:
            yield None
