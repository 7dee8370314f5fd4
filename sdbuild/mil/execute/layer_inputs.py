"""Observation of the inputs of layers: their range, and what rounding them to integers costs.

The range is that of all samples, and decides the scale. With it, one layer at a time is given
rounded inputs, and what the program gives is compared. `compress/activations.py` chooses layers by
that, and writes programs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sdbuild.base.errors import MILError
from sdbuild.base.progress import each
from sdbuild.mil.compress.activations import Layer, LayerInput, layers, scale_of
from sdbuild.mil.execute.executable import Argument, Observation
from sdbuild.mil.execute.execute import Executor
from sdbuild.mil.execute.ops._values import carry
from sdbuild.mil.execute.ops.quantization_ops import dequantize, quantize
from sdbuild.mil.files.package import Model
from sdbuild.mil.ir.program import Operation

_DIGITS = 1
"""Of a ratio in dB, that processors which add in another order mostly agree on."""

Arrays = Mapping[str, np.ndarray]

Matters = Callable[[Sequence[Arrays]], np.ndarray]
"""Gives what matters of the outputs for a group of samples, as one array."""


def joined(outputs: Sequence[Arrays]) -> np.ndarray:
    """Returns all outputs, one after another.

    Shapes:
        returns: (elements,)
    """
    return np.concatenate([array.ravel().astype(np.float64) for made in outputs
                           for array in made.values()])


def observed(
    model: Model, groups: Sequence[Sequence[Arrays]], *, matters: Matters = joined,
    measured: int | None = None, function: str | None = None, weight_bytes: int | None = None,
) -> list[LayerInput]:
    """Returns the input of each layer that can be quantized, in the order of the program.

    Args:
        groups: samples, of which those whose outputs matter together stand together.
        measured: so many of the groups, evenly spread, are run again for each layer; all if None.

    Raises:
        MILError: there are no samples, one does not fit the program, or an input is not finite.
    Shapes:
        groups: as the model declares its inputs.
    """
    if not groups:
        raise MILError(f"{model.source}: no samples to observe")
    found = layers(model.function(function))
    largest: dict[str, float] = {}
    observer = Executor(model, function=function, weight_bytes=weight_bytes,
                        observe=partial(_widen, found, largest))
    for group in each(groups, "ranges", len(groups)):
        for sample in group:
            observer.predict(sample)
    del observer
    count = min(measured or len(groups), len(groups))
    some = [groups[at * len(groups) // count] for at in range(count)]
    executor = Executor(model, function=function, weight_bytes=weight_bytes)
    signal, noise = 0.0, dict.fromkeys(found, 0.0)
    for group in each(some, "errors", count):
        exact, others = _varied(executor, group, found, largest, matters)
        signal += float(np.square(exact).sum())
        for name, other in others.items():
            noise[name] += float(np.square(other - exact).sum())
    return [LayerInput(layer=name, value=layer.value, largest=largest[name], work=layer.work,
                       snr_db=_ratio_db(signal, noise[name])) for name, layer in found.items()]


def _varied(
    executor: Executor, group: Sequence[Arrays], found: Mapping[str, Layer],
    largest: Mapping[str, float], matters: Matters,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns what matters of a group's outputs, as they are and with the input of each layer
    rounded."""
    def vary(operation: Operation, values: Mapping[str, Tensor]) -> dict[str, Argument] | None:
        layer = found.get(operation.name)
        if layer is None:
            return None
        scale = carry(scale_of(largest[layer.name], layer.dtype))
        return {"x": dequantize(quantize(values[layer.value], scale, "int8"), scale)}

    made = [dict(executor.variations(sample, vary)) for sample in group]
    whole = {name: matters([outputs[name] for outputs in made]) for name in made[0]}
    exact = whole.pop("")
    return exact, whole


def _widen(
    found: Mapping[str, Layer], largest: dict[str, float], seen: Observation
) -> None:
    """Takes the greatest magnitude of a layer's input."""
    name = seen.operation.name
    if name in found:
        given = seen.inputs["x"]
        assert isinstance(given, Tensor)
        here = float(torch.linalg.vector_norm(given, math.inf))
        if not math.isfinite(here):
            raise MILError(f"{seen.operation.type} {name}: its input {found[name].value} is not "
                           "finite", hint="`sdbuild mil run` names the operation that made such "
                                          "numbers")
        largest[name] = max(largest.get(name, 0.0), here)


def _ratio_db(signal: float, noise: float) -> float:
    if not noise:
        return math.inf
    return round(10 * math.log10(signal / noise), _DIGITS) if signal else 0.0
