"""Recurrent layers, one step at a time.

Source:
    What MIL's documentation leaves open (peepholes, clipping, the order of the outputs in reverse)
    is as in coremltools 9.0, `ops/tests/iOS14/test_recurrent.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from sdbuild.mil.execute.ops._types import T

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x, "relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh,
    "scaled_tanh": torch.tanh, "hard_sigmoid": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "sigmoid_hard": lambda x: (0.2 * x + 0.5).clamp(0, 1),
}
"""With their default scales, which `lstm` has no arguments for."""

_Step = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]
"""From what the input gives to the gates, and the states, to the next states; output first."""


def lstm(
    x: T, initial_h: T, initial_c: T, weight_ih: T, weight_hh: T, bias: T | None = None,
    weight_ih_back: T | None = None, weight_hh_back: T | None = None,
    bias_back: T | None = None, peephole: T | None = None, peephole_back: T | None = None,
    direction: str = "forward", output_sequence: bool = False,
    recurrent_activation: str = "sigmoid", cell_activation: str = "tanh",
    activation: str = "tanh", clip: float | None = None,
) -> tuple[T, T, T]:
    """Long short-term memory; the gates are in the order input, forget, output, cell.

    A peephole lets a gate see the cell, that of the output the new one; the cell is clipped.

    Shapes:
        x: (S, B, I); initial_h, initial_c: (B, directions * H);
        weight_ih: (4 * H, I); weight_hh: (4 * H, H); bias: (4 * H,); peephole: (3 * H,)
        returns: (S or 1, B, directions * H), (B, directions * H), (B, directions * H)
    """
    gate, cell, out = (_ACTIVATIONS[n] for n in (recurrent_activation, cell_activation, activation))

    def step_with(weight: Tensor, peephole: Tensor | None) -> _Step:
        p_i, p_f, p_o = (0, 0, 0) if peephole is None else peephole.chunk(3)

        def step(given: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            h, c = states
            i, f, o, z = (given + F.linear(h, weight)).chunk(4, -1)
            c = gate(f + p_f * c) * c + gate(i + p_i * c) * cell(z)
            c = c if clip is None else c.clamp(-clip, clip)
            return gate(o + p_o * c) * out(c), c
        return step

    forward = F.linear(x, weight_ih, bias), step_with(weight_hh, peephole)
    back = forward
    if direction == "bidirectional":
        back = F.linear(x, weight_ih_back, bias_back), step_with(weight_hh_back, peephole_back)
    return _directions(forward, back, (initial_h, initial_c), direction, output_sequence)


def gru(
    x: T, initial_h: T, weight_ih: T, weight_hh: T, bias: T | None = None,
    input_bias: T | None = None, direction: str = "forward", output_sequence: bool = False,
    recurrent_activation: str = "sigmoid", activation: str = "tanh", reset_after: bool = False,
) -> tuple[T, T]:
    """Gated recurrent units; the gates are in the order reset, output, update.

    Shapes:
        x: (S, B, I); initial_h: (B, H); weight_ih: (3 * H, I); weight_hh: (3 * H, H);
        bias, input_bias: (3 * H,)
        returns: (S or 1, B, H), (B, H)
    """
    gate, out = _ACTIVATIONS[recurrent_activation], _ACTIVATIONS[activation]
    inner_bias = bias if reset_after else None
    given = F.linear(x, weight_ih, input_bias if reset_after else _sum(bias, input_bias))
    w_r, w_o, w_z = weight_hh.chunk(3)
    b_r, b_o, b_z = (None, None, None) if inner_bias is None else inner_bias.chunk(3)

    def step(each: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (h,) = states
        x_r, x_o, x_z = each.chunk(3, -1)
        r, z = gate(x_r + F.linear(h, w_r, b_r)), gate(x_z + F.linear(h, w_z, b_z))
        reset = r * F.linear(h, w_o, b_o) if reset_after else F.linear(r * h, w_o)
        return ((1 - z) * out(x_o + reset) + z * h,)

    one = given, step
    return _directions(one, one, (initial_h,), direction, output_sequence)


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """The sum of what is there."""
    if first is None or second is None:
        return second if first is None else first
    return first + second


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
    """The outputs and last states; the directions side by side in the last dimension.

    Alone, the reverse gives its outputs in the order in which it makes them.
    """
    if direction != "bidirectional":
        given, step = forward
        runs = [_run(given.flip(0) if direction == "reverse" else given, step, states, False)]
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
