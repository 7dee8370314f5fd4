"""Elementwise operations on one tensor."""

from __future__ import annotations

import torch

from sdbuild.mil.execute.ops._types import Any_, Bool, ByDtype, T
from sdbuild.mil.execute.ops._values import CARRIERS


def abs_(x: T) -> T:
    return torch.abs(x)


def acos(x: T) -> T:
    return torch.acos(x)


def asin(x: T) -> T:
    return torch.asin(x)


def atan(x: T) -> T:
    return torch.atan(x)


def atanh(x: T) -> T:
    return torch.atanh(x)


def cast(x: Any_, dtype: str) -> ByDtype:
    return x.to(CARRIERS[dtype])


def ceil(x: T) -> T:
    return torch.ceil(x)


def clip(x: T, alpha: float, beta: float) -> T:
    return x.clamp(alpha, beta)


def cos(x: T) -> T:
    return torch.cos(x)


def cosh(x: T) -> T:
    return torch.cosh(x)


def erf(x: T) -> T:
    return torch.erf(x)


def exp(x: T) -> T:
    return torch.exp(x)


def exp2(x: T) -> T:
    return torch.exp2(x).to(x.dtype)


def floor(x: T) -> T:
    return torch.floor(x)


def inverse(x: T, epsilon: float = 1e-4) -> T:
    return 1 / (x + epsilon)


def log(x: T, epsilon: float = 1e-45) -> T:
    return torch.log(x + epsilon)


def logical_not(x: Bool) -> Bool:
    return ~x


def round_(x: T) -> T:
    return torch.round(x)  # halves go to the even neighbour


def rsqrt(x: T, epsilon: float = 1e-12) -> T:
    return torch.rsqrt(x + epsilon)


def sign(x: T) -> T:
    return torch.sign(x)


def sin(x: T) -> T:
    return torch.sin(x)


def sinh(x: T) -> T:
    return torch.sinh(x)


def sqrt(x: T) -> T:
    return torch.sqrt(x)


def square(x: T) -> T:
    return x * x


def tan(x: T) -> T:
    return torch.tan(x)


def tanh(x: T) -> T:
    return torch.tanh(x)


def threshold(x: T, alpha: float) -> T:
    return x.clamp(min=alpha)
