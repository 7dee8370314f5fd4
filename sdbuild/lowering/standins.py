"""Stand-ins: tensors that take the place of weights while an architecture is lowered.

A stand-in has one number per row of axis 0, repeated over the other axes with stride 0, so it
costs four bytes a row whatever its size. Its first number is negative and its own among all
stand-ins of a network, the others are positive, and all are numbers of fp16, which no cast changes.
So every blob of the lowered program says which parameter belongs there.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

import numpy as np
import torch

from sdbuild.base.errors import StepError

SEED = 8128


class StandIns:
    """The stand-ins of a network's parameters.

    Args:
        shapes: of the parameters, by name.
        avoid: numbers that no stand-in has, of either sign: those of the program's constants.

    Raises:
        StepError: there are more parameters than numbers to tell them apart.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], avoid: Set[float] = frozenset(),
        seed: int = SEED,
    ) -> None:
        rng = np.random.default_rng(seed)
        numbers = rng.permutation(_ORDERED[~np.isin(_ORDERED, list(avoid))])
        if len(shapes) > len(numbers):
            raise StepError(
                f"{len(shapes)} parameters, expected at most {len(numbers)}: placeholders "
                "have no more distinct numbers",
                hint="lower=direct converts with the real weights in place of placeholders",
            )
        self.shapes = dict(shapes)
        self.rows = {
            name: np.concatenate([-numbers[i:i + 1], _cycled(rng, numbers, _rows(shape) - 1)])
            for i, (name, shape) in enumerate(shapes.items())
        }
        self._by_first = {float(rows[0]): name for name, rows in self.rows.items()}
        self._numbers = np.unique(np.abs(np.concatenate([np.zeros(0), *self.rows.values()])))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns the stand-in of each parameter, in fp32.

        Shapes:
            each: that of its parameter, with stride 0 but for axis 0.
        """
        return {
            name: torch.from_numpy(rows).reshape(_column(self.shapes[name]))
            .expand(self.shapes[name])
            for name, rows in self.rows.items()
        }

    def parameter(self, array: np.ndarray) -> tuple[str, bool] | None:
        """Returns the parameter whose stand-in `array` is, and whether it is transposed; None if
        none.

        Axes of size 1 do not matter: they bear no bytes.
        Shapes:
            array: any; that of a parameter, or of its transpose.
        """
        name = self._by_first.get(float(array.flat[0])) if array.size else None
        if name is None:
            return None
        shape = self.shapes[name]
        expected = np.broadcast_to(self.rows[name].reshape(_column(shape)), shape).squeeze()
        found = array.squeeze()
        if found.shape == expected.shape and np.array_equal(found, expected):
            return name, False
        if found.ndim == 2 and found.T.shape == expected.shape and np.array_equal(
            found.T, expected
        ):
            return name, True
        return None

    def numbers_in(self, array: np.ndarray) -> frozenset[float]:
        """Returns the numbers of any stand-in, of either sign, that `array` holds, without
        signs."""
        return frozenset(np.intersect1d(_magnitudes(array), self._numbers).tolist())

    def parameters_with(self, numbers: Set[float]) -> list[str]:
        """Returns the parameters whose stand-ins begin with one of these numbers, or else hold
        one."""
        firsts = [name for name, rows in self.rows.items() if -float(rows[0]) in numbers]
        return firsts or [
            name for name, rows in self.rows.items() if not numbers.isdisjoint(rows.tolist())
        ]


def _grid() -> np.ndarray:
    """Returns the numbers of fp16 from 2^-10 to 2^8 whose last bit is set, in order, in fp32.

    None has fewer than eleven binary digits: no whole number, half or quarter of a small one is
    among them, which is what programs mostly hold.
    """
    first, last = (15 - 10) << 10, (15 + 8) << 10
    bits = np.arange(first + 1, last, 2, dtype=np.uint16)
    return bits.view(np.float16).astype(np.float32)


_ORDERED = _grid()
GRID = frozenset(_ORDERED.tolist())
"""The 9,216 numbers that stand-ins are made of, without signs."""


def on_grid(array: np.ndarray) -> frozenset[float]:
    """Returns the numbers in an array that stand-ins could have, without signs.

    Shapes:
        array: any; returns (count,).
    """
    return frozenset(np.intersect1d(_magnitudes(array), _ORDERED).tolist())


def _magnitudes(array: np.ndarray) -> np.ndarray:
    """Returns the absolute values in an array, whose repetitions are not looked at."""
    thin = array[tuple(slice(None) if stride else slice(1) for stride in array.strides)]
    return np.unique(np.abs(thin.astype(np.float64)))


def _cycled(rng: np.random.Generator, numbers: np.ndarray, count: int) -> np.ndarray:
    """So many of the numbers, none twice before all were there: rows do not change places unseen.
    """
    whole, rest = divmod(max(count, 0), len(numbers))
    cycles = [rng.permutation(numbers) for _ in range(whole)]
    return np.concatenate([*cycles, rng.choice(numbers, rest, replace=False)])


def _rows(shape: tuple[int, ...]) -> int:
    return shape[0] if shape else 1


def _column(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (_rows(shape), *[1] * (len(shape) - 1)) if shape else ()
