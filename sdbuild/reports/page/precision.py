"""Finds the operations that lose precision in fp16, and the layers that they belong to."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sdbuild.bundle.manifest import Bundle
from sdbuild.bundle.request import Request
from sdbuild.mil.files.package import Model
from sdbuild.mil.files.read import read_model
from sdbuild.reports.page.report import Loss

if TYPE_CHECKING:
    import numpy as np

    from sdbuild.mil.execute.observe import PrecisionLoss
    from sdbuild.runtime.predictor import Predictor

_STEPS = 2
"""Of the image that the inputs are taken from; those of the last one are observed."""
_WEIGHT = re.compile(r"(?:p_net_)?(.+?)_(?:weight|bias)(?:_|$)")
"""A constant's name as coremltools makes it of a parameter's."""

Inputs = dict[str, dict[str, "np.ndarray"]]
"""The last inputs of each model, by its file's name."""


class _Noted:
    """A predictor that keeps what it was given last."""

    def __init__(self, inner: Predictor, name: str, seen: Inputs) -> None:
        self.shapes = inner.shapes
        self._inner, self._name, self._seen = inner, name, seen

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the outputs for some inputs."""
        self._seen[self._name] = dict(inputs)
        return self._inner.predict(inputs)


def precision(
    bundle: Bundle, request: Request, most: int, weight_bytes: int | None = None
) -> Iterator[Loss]:
    """Yields the operations of each component that lose the most, the worst first, for the inputs
    that they get when an image is generated.

    Args:
        bundle: one that can draw.
    Units:
        most: of a component; weight_bytes: of decoded weights that the executor keeps.
    """
    from sdbuild.runtime.drawing import draw_each
    from sdbuild.runtime.predictor import Chain, load

    seen: Inputs = {}

    def noted(name: str) -> Predictor:
        paths = bundle.models[name]
        share = None if weight_bytes is None else weight_bytes // len(paths)
        return Chain([_Noted(load([path], "portable", bundle.attention, share), path.name, seen)
                      for path in paths])

    short = replace(request, count=1, steps=min(request.steps, _STEPS))
    list(draw_each(bundle, [short], noted))
    for component, paths in bundle.models.items():
        observed = [path for path in paths if path.name in seen]
        yield from _of_component(component, observed, seen, most)


def _of_component(
    component: str, paths: Sequence[Path], seen: Inputs, most: int
) -> Iterator[Loss]:
    from sdbuild.mil.execute.observe import losses, worst

    found: list[tuple[str, str, PrecisionLoss]] = []
    for path in paths:
        model = read_model(path)
        layers = _layers(model)
        found += [(path.name, layers.get(loss.name, ""), loss)
                  for loss in worst(losses(model, seen[path.name]), most)]
    found.sort(key=lambda each: _rank(each[2]), reverse=True)
    for file, layer, loss in found[:most]:
        yield Loss(component=component, model=file, operation=loss.name, type=loss.type,
                   layer=layer, snr_db=_finite(loss.snr_db), lost_db=_finite(loss.added_db))


def _rank(loss: PrecisionLoss) -> float:
    return math.inf if math.isnan(loss.added_db) else loss.added_db


def _layers(model: Model) -> dict[str, str]:
    """Returns the layer of each operation: that of the weights it uses, or of the last before."""
    found, last = {}, ""
    for operation in model.program.main.block.operations:
        named = (_WEIGHT.match(name) for name in operation.references())
        last = next((match[1] for match in named if match), last)
        found[operation.name] = last
    return found


def _finite(value: float) -> float | None:
    return round(value, 2) if math.isfinite(value) else None
