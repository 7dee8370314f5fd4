"""Calibration of a network: how much each weight matters, and what each layer is given.

Both come from the same passes over moments of use. How much a weight matters is the mean square of
what changing it changes in the guided noise (the diagonal of the Fisher information, with random
signs for all elements of the noise at once). The inputs of a layer are described by the products of
their elements with each other, over random positions: `inputs.py`. All sums are in files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sdbuild.base.progress import each
from sdbuild.models.decoded import named_parameters
from sdbuild.quality.calibration import LEAST_ELEMENTS, Feedback
from sdbuild.quality.inputs import Inputs, layers
from sdbuild.quality.moments import Moment
from sdbuild.quality.scratch import scratch

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
        folder: of files for scratch.
    """

    def __init__(self, network: nn.Module, ports: Sequence[str], outputs: Outputs, seed: int,
                 folder: Path) -> None:
        self._network, self._ports, self._outputs = network, ports, outputs
        self._rng = torch.Generator().manual_seed(seed)
        self._squares = {name: scratch(folder, p.shape) for name, p in large(network)}
        self._inputs = {name: Inputs(layer, self._rng, folder) for name, layer in layers(network)}
        self._moments = 0
        self._energy = 0.0

    def run(self, moments: Sequence[Moment]) -> None:
        """Passes over moments, forwards and backwards."""
        network = self._network.requires_grad_(False)
        hooks = []
        for name, parameter in large(network):
            parameter.requires_grad_(True)
            hooks.append(parameter.register_post_accumulate_grad_hook(self._adder(name)))
        for moment in each(moments, "passes", len(moments)):
            given = [torch.from_numpy(moment[name]).float() for name in self._ports]
            with self._watched():
                made = network(*given)
            found = self._outputs(made if isinstance(made, tuple) else (made,))
            signs = torch.randint(0, 2, found.shape, generator=self._rng).float() * 2 - 1
            (signs * found).sum().backward()
            self._energy += float(found.detach().square().sum())
            self._moments += 1
        for hook in hooks:
            hook.remove()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Takes the inputs of layers meanwhile; not in the backward pass, where a network that is
        recomputed gives them a second time."""
        hooks = [layer.register_forward_pre_hook(self._inputs[name])
                 for name, layer in layers(self._network)]
        yield
        for hook in hooks:
            hook.remove()

    @property
    def energy(self) -> float:
        """The mean sum of squares of what matters of the outputs."""
        return self._energy / self._moments

    def sensitivities(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields for each large parameter how much the square of its elements' errors counts."""
        for name, total in each(self._squares.items(), "tensors", len(self._squares)):
            yield name, (total / self._moments).numpy()

    def feedbacks(self) -> Iterator[tuple[str, Feedback]]:
        """Yields the feedback of each layer, by the name of its weight."""
        for name, inputs in each(self._inputs.items(), "tensors", len(self._inputs)):
            yield name, inputs.feedback()

    def _adder(self, name: str) -> Callable[[torch.Tensor], None]:
        def add(parameter: torch.Tensor) -> None:
            assert parameter.grad is not None
            self._squares[name] += parameter.grad.square_()
            parameter.grad = None

        return add


def large(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yields the parameters that may be palettized, with their names."""
    for name, parameter in named_parameters(network):
        if parameter.ndim > 1 and parameter.numel() > LEAST_ELEMENTS:
            yield name, parameter
