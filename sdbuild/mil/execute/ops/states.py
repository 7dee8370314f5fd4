"""Tensors that live on between predictions."""

from __future__ import annotations

from sdbuild.mil.execute.ops._types import Moved, T


def read_state(input: T) -> Moved[T]:
    return input.clone()


def coreml_update_state(state: T, value: T) -> Moved[T]:
    state.copy_(value)
    return value


def write_state(input: T, data: T) -> list[Moved[T]]:
    input.copy_(data)
    return []
