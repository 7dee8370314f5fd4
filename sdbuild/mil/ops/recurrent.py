"""Recurrent layers, one step at a time.

Peepholes, clipping and the scaled activations are refused: their details are not known for
certain, nor are those of `gru`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from sdbuild.mil.ops._types import T

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x, "relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh,
}

_Step = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]
"""From what the input gives to the gates, and the states, to the next states; output first."""


def lstm(
    x: T, initial_h: T, initial_c: T, weight_ih: T, weight_hh: T, bias: T | None = None,
    weight_ih_back: T | None = None, weight_hh_back: T | None = None,
    bias_back: T | None = None, direction: str = "forward", output_sequence: bool = False,
    recurrent_activation: str = "sigmoid", cell_activation: str = "tanh",
    activation: str = "tanh",
) -> tuple[T, T, T]:
    """Long short-term memory; the gates are in the order input, forget, output, cell.

    Shapes:
        x: (S, B, I); initial_h, initial_c: (B, directions * H);
        weight_ih: (4 * H, I); weight_hh: (4 * H, H); bias: (4 * H,)
        returns: (S or 1, B, directions * H), (B, directions * H), (B, directions * H)
    """
    gate, cell, out = (_ACTIVATIONS[n] for n in (recurrent_activation, cell_activation, activation))

    def step_with(weight: Tensor) -> _Step:
        def step(given: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            h, c = states
            i, f, o, z = (given + F.linear(h, weight)).chunk(4, -1)
            c = gate(f) * c + gate(i) * cell(z)
            return gate(o) * out(c), c
        return step

    forward = F.linear(x, weight_ih, bias), step_with(weight_hh)
    back = forward
    if direction == "bidirectional":
        back = F.linear(x, weight_ih_back, bias_back), step_with(weight_hh_back)
    return _directions(forward, back, (initial_h, initial_c), direction, output_sequence)


def rnn(
    x: T, initial_h: T, weight_ih: T, weight_hh: T, bias: T | None = None,
    direction: str = "forward", output_sequence: bool = False, activation: str = "tanh",
) -> tuple[T, T]:
    """A plain recurrent layer.

    Shapes:
        x: (S, B, I); initial_h: (B, H); weight_ih: (H, I); weight_hh: (H, H); bias: (H,)
        returns: (S or 1, B, H), (B, H)
    """
    def step(given: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (_ACTIVATIONS[activation](given + F.linear(states[0], weight_hh)),)

    one = F.linear(x, weight_ih, bias), step
    return _directions(one, one, (initial_h,), direction, output_sequence)


def _directions(
    forward: tuple[Tensor, _Step], back: tuple[Tensor, _Step], states: tuple[Tensor, ...],
    direction: str, output_sequence: bool,
) -> tuple[Tensor, ...]:
    """The outputs and last states; the directions side by side in the last dimension."""
    if direction != "bidirectional":
        runs = [_run(*forward, states, is_reverse=direction == "reverse")]
    else:
        first, second = zip(*(state.chunk(2, -1) for state in states), strict=True)
        runs = [_run(*forward, first, is_reverse=False), _run(*back, second, is_reverse=True)]
    sequence, *last = (torch.cat(parts, -1) for parts in zip(*runs, strict=True))
    return (sequence if output_sequence else last[0].unsqueeze(0), *last)


def _run(
    given: Tensor, step: _Step, states: tuple[Tensor, ...], is_reverse: bool
) -> tuple[Tensor, ...]:
    """The outputs of all steps, in the order of the input, and the last states."""
    outputs = []
    for each in given.flip(0) if is_reverse else given:
        states = step(each, states)
        outputs.append(states[0])
    sequence = torch.stack(outputs)
    return (sequence.flip(0) if is_reverse else sequence, *states)
