"""Calibration of a network: how much each weight matters, and what each layer is given.

Both come from the same passes over moments of use. How much a weight matters is the mean square of
what changing it changes in the guided noise (the diagonal of the Fisher information, with random
signs for all elements of the noise at once). The inputs of a layer are described by the products of
their elements with each other, over random positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sdbuild.base.progress import each
from sdbuild.quality.calibration import LEAST_ELEMENTS, Feedback
from sdbuild.quality.moments import Moment

_MOST_COLUMNS = 1152
"""Of a block of a layer's inputs: 128 channels of a convolution over 3 by 3. Between blocks no
products are kept."""

_POSITIONS = 64
"""Of a layer's input that are drawn in each moment."""

_DAMPING = 0.01
"""Of the mean of a block's diagonal, added to it."""

Outputs = Callable[[tuple[torch.Tensor, ...]], torch.Tensor]
"""Gives what matters of a network's outputs, as one tensor."""


def guided(scale: float) -> Outputs:
    """Returns what matters of a denoiser's outputs: the noise of the prompt, away from that of the
    negative prompt as far as guidance of this scale goes."""
    def noise(outputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        without, found = outputs[0].split(len(outputs[0]) // 2)
        return without + scale * (found - without) if scale > 1 else found

    return noise


def embedded(outputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Returns what matters of a text encoder's outputs: all of them, in units of their own size."""
    return torch.cat([(o / o.detach().square().mean().sqrt()).flatten() for o in outputs])


class Passes:
    """Statistics of a network, gathered by passes over moments.

    Args:
        ports: the names of the network's inputs, in order.
    """

    def __init__(self, network: nn.Module, ports: Sequence[str], outputs: Outputs,
                 seed: int) -> None:
        self._network, self._ports, self._outputs = network, ports, outputs
        self._rng = torch.Generator().manual_seed(seed)
        self.squares = {name: torch.zeros(p.shape) for name, p in large(network)}
        self._grams = {name: _Gram(layer, self._rng) for name, layer in layers(network)}
        self._moments = 0
        self._energy = 0.0

    def run(self, moments: Sequence[Moment]) -> None:
        """Passes over moments, forwards and backwards."""
        network = self._network.requires_grad_(False)
        hooks = [layer.register_forward_pre_hook(self._grams[name]) for name, layer in
                 layers(network)]
        for name, parameter in large(network):
            parameter.requires_grad_(True)
            hooks.append(parameter.register_post_accumulate_grad_hook(self._adder(name)))
        for moment in each(moments, "passes", len(moments)):
            made = network(*(torch.from_numpy(moment[name]).float() for name in self._ports))
            found = self._outputs(made if isinstance(made, tuple) else (made,))
            signs = torch.randint(0, 2, found.shape, generator=self._rng).float() * 2 - 1
            (signs * found).sum().backward()
            self._energy += float(found.detach().square().sum())
            self._moments += 1
        for hook in hooks:
            hook.remove()

    @property
    def energy(self) -> float:
        """The mean sum of squares of what matters of the outputs."""
        return self._energy / self._moments

    def sensitivities(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields for each large parameter how much the square of its elements' errors counts."""
        for name, total in self.squares.items():
            yield name, (total / self._moments).numpy()

    def feedbacks(self) -> Iterator[tuple[str, Feedback]]:
        """Yields the feedback of each layer, by the name of its weight."""
        for name, gram in self._grams.items():
            yield name, gram.feedback()

    def _adder(self, name: str) -> Callable[[torch.Tensor], None]:
        def add(parameter: torch.Tensor) -> None:
            assert parameter.grad is not None
            self.squares[name] += parameter.grad.square()
            parameter.grad = None

        return add


def large(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yields the parameters that may be palettized, with their names."""
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1 and parameter.numel() > LEAST_ELEMENTS:
            yield name, parameter


def layers(network: nn.Module) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    """Yields the layers whose inputs tell how errors can be made up for, with the names of their
    weights."""
    for name, module in network.named_modules():
        is_known = isinstance(module, nn.Linear) or (
            isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros"
            and not isinstance(module.padding, str))
        if is_known and module.weight.numel() > LEAST_ELEMENTS:
            yield f"{name}.weight", module


class _Gram:
    """The products of a layer's inputs with each other, in blocks of its weight's columns."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, rng: torch.Generator) -> None:
        self._layer, self._rng = layer, rng
        size, columns = layer.weight[0, 0].numel(), layer.weight[0].numel()
        per_block = max(1, _MOST_COLUMNS // size) * size  # whole channels
        self._width = min(columns, per_block)
        starts = range(0, columns, self._width)
        self._spans = [(at, min(columns, at + self._width)) for at in starts]
        self._totals = [torch.zeros(end - at, end - at, dtype=torch.float64)
                        for at, end in self._spans]

    def __call__(self, layer: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        """Adds the products of an input."""
        with torch.no_grad():
            for total, rows in zip(self._totals, self._rows(given[0].detach()), strict=True):
                total += (rows.T @ rows).double()

    def _rows(self, given: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yields the input of each block at some positions: (positions, columns)."""
        layer = self._layer
        if isinstance(layer, nn.Linear):
            rows = given.reshape(-1, given.shape[-1])
            rows = rows[self._drawn(len(rows))]
            yield from (rows[:, at:end] for at, end in self._spans)
            return
        size = layer.weight[0, 0].numel()
        drawn = None
        for at, end in self._spans:
            unfolded = F.unfold(given[:, at // size:end // size], layer.kernel_size,
                                layer.dilation, layer.padding, layer.stride)
            rows = unfolded.transpose(1, 2).reshape(-1, end - at)
            drawn = self._drawn(len(rows)) if drawn is None else drawn
            yield rows[drawn]

    def _drawn(self, count: int) -> torch.Tensor:
        return torch.randperm(count, generator=self._rng)[:_POSITIONS]

    def feedback(self) -> Feedback:
        """Returns the feedback of the layer."""
        order = np.tile(np.arange(self._width, dtype=np.int32), (len(self._spans), 1))
        factors = np.zeros((len(self._spans), self._width, self._width), np.float16)
        for number, total in enumerate(self._totals):
            count = len(total)
            order[number, :count], factors[number, :count, :count] = factored(total)
        return Feedback(order=order, factors=factors)


def factored(products: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Returns the order of columns, and how each makes up for errors of those before it.

    Shapes:
        products: (n, n), of inputs with each other; returns: (n,), (n, n), zero on and below the
        diagonal.
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
    return order.numpy().astype(np.int32), rows.numpy().astype(np.float16)


