"""Choices and loops."""

from __future__ import annotations

import torch

from sdbuild.mil.execute.ops._types import Any_, Body, Bool, Moved, T


def select(cond: Bool, a: T, b: T) -> Moved[T]:
    return torch.where(cond, a, b)


def cond(pred: bool, bodies: list[Body]) -> list[Moved[Any_]]:
    then, otherwise = bodies
    return list(then() if pred else otherwise())


def while_loop(loop_vars: list[Any_], bodies: list[Body]) -> list[Moved[Any_]]:
    condition, body = bodies
    values = tuple(loop_vars)
    while condition(*values)[0]:
        values = body(*values)
    return list(values)
