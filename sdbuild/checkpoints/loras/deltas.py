"""The matrices that LoRAs of each kind add to a weight, made from their factors by rows.

    LoRA    up @ down                 LoCon's convolutions too, with a core between: Tucker's form
    LoHa    (w1_a @ w1_b) ∘ (w2_a @ w2_b)
    LoKr    kron(w1, w2), of which each may be a product
    diff    the difference itself

A matrix has a row for each output of the layer; all else is columns. Sums are made element by
element and in order, not by a matrix library, whose order differs from machine to machine: the
same LoRA gives the same bytes everywhere. So lycoris and peft do not compute here; the tests verify
each kind against them.

Source:
    KohakuBlueleaf/LyCORIS `docs/Algo-Details.md` and `functional`; peft `tuners/{loha,lokr}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np

from sdbuild.safetensors.decode import to_array
from sdbuild.safetensors.tensors import Tensor

Rows = Callable[[int, int], np.ndarray]
"""The rows from the first number to before the second, in fp32: (rows, columns)."""


class Delta(Protocol):
    """A matrix that is made from tensors of a file."""

    @property
    def shape(self) -> tuple[int, ...] | None:
        """(out, in) or (out, in, kh, kw); None if the factors do not fit one another."""

    @property
    def rank(self) -> int | None:
        """The divisor of alpha; None if the factors do not show it."""

    def load(self) -> Rows:
        """Reads the factors.

        Raises:
            SourceError: one is not of floats.
        """


@dataclass(frozen=True, slots=True)
class Full:
    """A matrix that is in the file as it is."""

    tensor: Tensor
    rank = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's."""
        return self.tensor.shape

    def load(self) -> Rows:
        """Reads it."""
        matrix = _matrix(self.tensor)
        return lambda first, end: matrix[first:end]


@dataclass(frozen=True, slots=True)
class LowRank:
    """up @ down, or with a core between them, for convolutions.

    Shapes:
        up: (out, rank), perhaps with 1, 1 behind; (rank, out) if `is_turned`;
        down: (rank, in) or (rank, in, kh, kw);
        core: (rank of up, rank of down, kh, kw), and down is 1×1 then.
    """

    up: Tensor
    down: Tensor
    core: Tensor | None = None
    is_turned: bool = False

    @property
    def rank(self) -> int:
        """The rows of `down`."""
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, ...] | None:
        """(out, in, …)."""
        up, down = self.up.shape, self.down.shape
        if len(up) < 2 or len(down) < 2 or prod(up[2:]) != 1:
            return None
        out, inner = up[:2][::-1] if self.is_turned else up[:2]
        if self.core is None:
            return (out, *down[1:]) if inner == down[0] else None
        core = self.core.shape
        if len(core) < 3 or core[:2] != (inner, down[0]) or prod(down[2:]) != 1:
            return None
        return (out, down[1], *core[2:])

    def load(self) -> Rows:
        """Reads the factors."""
        up, down = _matrix(self.up), _matrix(self.down)
        if self.is_turned:
            up = up.T
        if self.core is not None:
            core = to_array(self.core).astype(np.float32)
            folded = core.reshape(*core.shape[:2], -1).transpose(0, 2, 1)  # (rank, kh*kw, rank)
            down = np.stack([_product(row, down).T for row in folded])  # -> (rank, in, kh*kw)
            down = down.reshape(down.shape[0], -1)
        return lambda first, end: _product(up[first:end], down)


@dataclass(frozen=True, slots=True)
class Hadamard:
    """The products of two matrices' elements."""

    one: LowRank
    two: LowRank

    @property
    def rank(self) -> int:
        """That of one of them."""
        return self.one.rank

    @property
    def shape(self) -> tuple[int, ...] | None:
        """That of each of them."""
        return self.one.shape if self.one.shape == self.two.shape else None

    def load(self) -> Rows:
        """Reads the factors."""
        one, two = self.one.load(), self.two.load()
        return lambda first, end: one(first, end) * two(first, end)


@dataclass(frozen=True, slots=True)
class Kronecker:
    """The product of each element of the left matrix with all of the right one.

    Shapes:
        left: (a, c); right: (b, d, …); the product: (a·b, c·d, …).
    """

    left: Full | LowRank
    right: Full | LowRank

    @property
    def rank(self) -> int | None:
        """That of the first matrix that is a product."""
        return self.left.rank or self.right.rank

    @property
    def shape(self) -> tuple[int, ...] | None:
        """(a·b, c·d, …)."""
        left, right = self.left.shape, self.right.shape
        if left is None or right is None or len(left) < 2 or len(right) < 2 or prod(left[2:]) != 1:
            return None
        return (left[0] * right[0], left[1] * right[1], *right[2:])

    def load(self) -> Rows:
        """Reads the factors."""
        left, right = (_all(part) for part in (self.left, self.right))

        def rows(first: int, end: int) -> np.ndarray:
            places = np.arange(first, end)
            one, two = left[places // len(right)], right[places % len(right)]
            return (one[:, :, None] * two[:, None, :]).reshape(len(places), -1)

        return rows


@dataclass(frozen=True, slots=True)
class Slices:
    """Some rows of a matrix, which has `of` parts of one size: `parts`, in this order."""

    whole: Delta
    parts: tuple[int, ...]
    of: int

    @property
    def rank(self) -> int | None:
        """The whole matrix's."""
        return self.whole.rank

    @property
    def shape(self) -> tuple[int, ...] | None:
        """(rows of the parts, …); None if the rows are not in parts of one size."""
        whole = self.whole.shape
        if whole is None or whole[0] % self.of:
            return None
        return (whole[0] // self.of * len(self.parts), *whole[1:])

    def load(self) -> Rows:
        """Reads the whole matrix's factors."""
        rows, shape = self.whole.load(), self.shape
        size = shape[0] // len(self.parts) if shape else 0

        def some(first: int, end: int) -> np.ndarray:
            return np.concatenate([
                rows(part * size + max(first - at, 0), part * size + min(end - at, size))
                for at, part in zip(range(0, len(self.parts) * size, size), self.parts, strict=True)
                if at < end and first < at + size])

        return some


Parts = Mapping[str, Tensor]
"""The tensors of one layer by their roles."""


def lora(parts: Parts) -> LowRank:
    """From `lora_up`, `lora_down` and perhaps `lora_mid`; KeyError without."""
    return LowRank(parts["lora_up"], parts["lora_down"], parts.get("lora_mid"))


def loha(parts: Parts) -> Hadamard:
    """From `hada_…`; KeyError without. With a core, the factors of the outputs are turned."""
    one, two = (
        LowRank(parts[f"hada_w{i}_a"], parts[f"hada_w{i}_b"], core, is_turned=core is not None)
        for i, core in ((1, parts.get("hada_t1")), (2, parts.get("hada_t2")))
    )
    return Hadamard(one, two)


def lokr(parts: Parts) -> Kronecker:
    """From `lokr_…`; KeyError without."""
    def factor(name: str, core: Tensor | None) -> Full | LowRank:
        if name in parts:
            return Full(parts[name])
        return LowRank(parts[f"{name}_a"], parts[f"{name}_b"], core, is_turned=core is not None)

    return Kronecker(factor("lokr_w1", None), factor("lokr_w2", parts.get("lokr_t2")))


def diff(parts: Parts) -> Full:
    """From `diff`; KeyError without."""
    return Full(parts["diff"])


KINDS: Mapping[str, Callable[[Parts], Delta]] = {
    "lora": lora, "hada": loha, "lokr": lokr, "diff": diff,
}
"""Constructors of each kind of delta, by the prefix of its roles."""


def fits(delta: Delta, weight: tuple[int, ...]) -> bool:
    """Whether the matrix has the weight's shape; a linear layer and a 1×1 convolution are one.

    A matrix of two sides may have all of a convolution's inputs in its second.
    """
    shape = delta.shape
    if shape is None or shape[:1] != weight[:1]:
        return False
    return (_trimmed(shape[1:]) == _trimmed(weight[1:])
            or (len(shape) == 2 and shape[1] == prod(weight[1:])))


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:1] if all(side == 1 for side in shape[1:]) else shape


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left @ right in fp32, summed in the order of the rank."""
    total = np.zeros((left.shape[0], right.shape[1]), np.float32)
    term = np.empty_like(total)
    for i in range(right.shape[0]):
        np.multiply(left[:, i:i + 1], right[i], out=term)
        total += term
    return total


def _matrix(tensor: Tensor) -> np.ndarray:
    return to_array(tensor).astype(np.float32).reshape(tensor.shape[0], -1)


def _all(part: Full | LowRank) -> np.ndarray:
    shape = part.shape
    return part.load()(0, shape[0] if shape else 0)
