"""Second moments (XᵀX) of the inputs of layers, and the GPTQ coefficients that follow from them.

Together they are larger than the network, so they are kept in files, and updated once for the
inputs of several moments.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sdbuild.quality.calibration import LEAST_ELEMENTS, Feedback
from sdbuild.quality.scratch import scratch

_MOST_COLUMNS = 576
"""Of a block of a layer's inputs: 64 channels of a convolution over 3 by 3. Between blocks no
products are kept. Of the built-in U-Net blocks twice as wide gain 0.1 dB at most, and cost twice to
four times as much in every later step; blocks half as wide lose 0.2 to 0.4 dB."""

_POSITIONS = 64
"""Of a layer's input that are drawn in each moment."""

_MOMENTS = 8
"""The moments whose inputs are kept until they are multiplied, so that products are read and
written an eighth as often."""

_DAMPING = 0.01
"""Of the mean of a block's diagonal, added to it."""


def layers(network: nn.Module) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    """Yields the layers whose inputs tell how errors can be made up for, with the names of their
    weights."""
    for name, module in network.named_modules():
        is_known = isinstance(module, nn.Linear) or (
            isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros"
            and not isinstance(module.padding, str))
        if is_known and _rows(module) * _columns(module) > LEAST_ELEMENTS:
            yield f"{name}.weight", module


def _rows(layer: nn.Linear | nn.Conv2d) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _columns(layer: nn.Linear | nn.Conv2d) -> int:
    return (layer.in_features if isinstance(layer, nn.Linear)
            else layer.in_channels * _kernel(layer))


def _kernel(layer: nn.Linear | nn.Conv2d) -> int:
    """Returns the elements of a layer's kernel."""
    return 1 if isinstance(layer, nn.Linear) else int(np.prod(layer.kernel_size))


class Inputs:
    """The products of a layer's inputs with each other, in blocks of its weight's columns; a
    pre-forward hook of the layer.

    Args:
        folder: of files for scratch.
    """

    def __init__(
        self, layer: nn.Linear | nn.Conv2d, rng: torch.Generator, folder: Path
    ) -> None:
        self._layer, self._rng = layer, rng
        size, columns = _kernel(layer), _columns(layer)
        per_block = max(1, _MOST_COLUMNS // size) * size  # whole channels
        self._width = min(columns, per_block)
        starts = range(0, columns, self._width)
        self._spans = [(at, min(columns, at + self._width)) for at in starts]
        self._products = scratch(folder, (len(self._spans), self._width, self._width))
        self._waiting = scratch(folder, (_MOMENTS * _POSITIONS, columns))
        self._count = 0

    def __call__(self, layer: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        """Takes an input, at some positions."""
        with torch.no_grad():
            self._take(given[0])

    def _take(self, given: torch.Tensor) -> None:
        drawn: torch.Tensor | None = None
        for at, end in self._spans:
            rows = self._unfolded(given, at, end)
            samples, positions, _ = rows.shape
            drawn = self._drawn(samples * positions) if drawn is None else drawn
            if self._count + len(drawn) > len(self._waiting):
                self._multiply()
            self._waiting[self._count:self._count + len(drawn), at:end] = \
                rows[drawn // positions, drawn % positions]
        assert drawn is not None
        self._count += len(drawn)

    def _unfolded(self, given: torch.Tensor, at: int, end: int) -> torch.Tensor:
        """Returns what some columns of the weight are multiplied with.

        Shapes:
            returns: (samples, positions, end - at)
        """
        layer = self._layer
        if isinstance(layer, nn.Linear):
            return given.reshape(1, -1, given.shape[-1])[:, :, at:end]
        size = _kernel(layer)
        unfolded = F.unfold(given[:, at // size:end // size], layer.kernel_size, layer.dilation,
                            layer.padding, layer.stride)
        return unfolded.transpose(1, 2)

    def _drawn(self, count: int) -> torch.Tensor:
        return torch.randperm(count, generator=self._rng)[:_POSITIONS]

    def _multiply(self) -> None:
        """Adds the products of the inputs that wait."""
        for number, (at, end) in enumerate(self._spans):
            rows = self._waiting[:self._count, at:end]
            self._products[number, :end - at, :end - at].addmm_(rows.T, rows)
        self._count = 0

    def feedback(self) -> Feedback:
        """Returns the feedback of the layer."""
        self._multiply()
        order = np.tile(np.arange(self._width, dtype=np.int32), (len(self._spans), 1))
        factors = np.zeros((len(self._spans), self._width, self._width), np.float16)
        variances, total = np.zeros(self._spans[-1][1]), 0.0
        for number, (at, end) in enumerate(self._spans):
            products = self._products[number, :end - at, :end - at].double()
            places, factors[number, :end - at, :end - at], found = factored(products)
            order[number, :end - at], variances[at + places] = places, found
            total += float(products.trace())
        mean = total / len(variances)
        return Feedback(order=order, factors=factors,
                        variances=(variances / (mean or 1.0)).astype(np.float32))


def factored(products: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the order of columns, how each makes up for errors of those before it, and the square
    of what those after it do not tell of it, in that order.

    Shapes:
        products: (n, n), of inputs with each other; returns: (n,), (n, n), zero on and below the
        diagonal, (n,).
    Source:
        Frantar et al., "GPTQ", 2022: the Cholesky factor of the inverse, columns in the order of
        the diagonal.
    """
    diagonal = products.diagonal().clone()
    mean = float(diagonal.mean()) or 1.0
    order = torch.argsort(diagonal, descending=True, stable=True)
    damped = products[order][:, order] + torch.eye(len(order)).double() * mean * _DAMPING
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    upper = torch.linalg.cholesky(inverse, upper=True)
    rows = torch.triu(upper / upper.diagonal()[:, None], diagonal=1)
    return (order.numpy().astype(np.int32), rows.numpy().astype(np.float16),
            (1 / upper.diagonal()**2).numpy())
