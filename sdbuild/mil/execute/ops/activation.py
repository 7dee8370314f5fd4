"""Activations, elementwise unless said otherwise."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from sdbuild.mil.execute.ops._types import T, U


def clamped_relu(x: T, alpha: float, beta: float) -> T:
    return torch.where(x >= 0, x, alpha * x).clamp(max=beta)


def elu(x: T, alpha: float) -> T:
    return torch.where(x > 0, x, alpha * torch.expm1(x))


def gelu(x: T, mode: str = "EXACT") -> T:
    match mode:
        case "EXACT":
            return F.gelu(x.contiguous())  # views take a kernel with other last bits at their ends
        case "TANH_APPROXIMATION":
            return F.gelu(x, approximate="tanh")
        case "SIGMOID_APPROXIMATION":
            return x * torch.sigmoid(1.702 * x)
    raise ValueError(f"mode {mode!r}")


def leaky_relu(x: T, alpha: float) -> T:
    return torch.where(x >= 0, x, alpha * x)


def linear_activation(x: T, alpha: float, beta: float) -> T:
    return alpha * x + beta


def prelu(x: T, alpha: U) -> T:
    return torch.where(x > 0, x, _per_channel(alpha, x.ndim) * x)


def relu(x: T) -> T:
    return torch.relu(x)


def relu6(x: T) -> T:
    return x.clamp(0, 6)


def scaled_tanh(x: T, alpha: float, beta: float) -> T:
    return alpha * torch.tanh(beta * x)


def sigmoid(x: T) -> T:
    return torch.sigmoid(x)


def sigmoid_hard(x: T, alpha: float, beta: float) -> T:
    return (alpha * x + beta).clamp(0, 1)


def silu(x: T) -> T:
    return F.silu(x)


def softplus(x: T) -> T:
    return torch.logaddexp(x, torch.zeros(()))


def softplus_parametric(x: T, alpha: U, beta: U) -> T:
    return _per_channel(alpha, x.ndim) * softplus(_per_channel(beta, x.ndim) * x)


def softmax(x: T, axis: int = -1) -> T:
    return torch.softmax(x, axis)


def softsign(x: T) -> T:
    return x / (1 + x.abs())


def thresholded_relu(x: T, alpha: float) -> T:
    return torch.where(x >= alpha, x, 0.0)


def _per_channel(values: torch.Tensor, rank: int) -> torch.Tensor:
    return values.reshape(-1, *[1] * (rank - 2))  # (C,) -> (C, 1, …), so that it broadcasts
