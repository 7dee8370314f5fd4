"""Elementwise operations on two tensors, broadcast as in numpy."""

from __future__ import annotations

import torch

from sdbuild.mil.execute.ops._types import Bool, T


def add(x: T, y: T) -> T:
    return x + y


def equal(x: T, y: T) -> Bool:
    return x == y


def floor_div(x: T, y: T) -> T:
    return torch.div(x, y, rounding_mode="floor")


def greater(x: T, y: T) -> Bool:
    return x > y


def greater_equal(x: T, y: T) -> Bool:
    return x >= y


def less(x: T, y: T) -> Bool:
    return x < y


def less_equal(x: T, y: T) -> Bool:
    return x <= y


def logical_and(x: Bool, y: Bool) -> Bool:
    return x & y


def logical_or(x: Bool, y: Bool) -> Bool:
    return x | y


def logical_xor(x: Bool, y: Bool) -> Bool:
    return x ^ y


def maximum(x: T, y: T) -> T:
    return torch.maximum(x, y)


def minimum(x: T, y: T) -> T:
    return torch.minimum(x, y)


def mod(x: T, y: T) -> T:
    return torch.remainder(x, y)  # has the sign of y, as in Python


def mul(x: T, y: T) -> T:
    return x * y


def not_equal(x: T, y: T) -> Bool:
    return x != y


def pow_(x: T, y: T) -> T:
    return torch.pow(x, y)


def real_div(x: T, y: T) -> T:
    return torch.div(x, y, rounding_mode=None if x.is_floating_point() else "trunc")


def sub(x: T, y: T) -> T:
    return x - y
