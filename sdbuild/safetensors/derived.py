"""Tensors that are computed from another: what a network takes from a table, made while it is
copied.

A converter would compute it from the table's numbers, so that no other checkpoint could be bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from sdbuild.base.errors import SourceError
from sdbuild.safetensors.tensors import Tensor

Shape = tuple[int, ...]
_MOST_DISTANCE = 128
"""Of two tokens that T5 tells apart. Source: Raffel et al. 2020 (arXiv 1910.10683), section 2.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived(Tensor):
    """A tensor that is put together from equal runs of `stored`'s elements, an index for each.

    It is held whole, `stored` a part at a time: a table of positions can be many times as large.

    Shapes:
        places: as the tensor, without the axes that runs take.
    """

    stored: Tensor
    places: np.ndarray

    @property
    def file_bytes(self) -> int:
        """Those of the stored one."""
        return self.stored.file_bytes

    def chunks(self) -> Iterator[bytes]:
        """Yields its bytes, all at once."""
        width = self.size_bytes // self.places.size
        order = np.argsort(self.places, axis=None, kind="stable")
        places = self.places.ravel()[order]
        found = np.empty((places.size, width), np.uint8)
        for start, runs in _runs(self.stored.chunks(), width):
            first, end = np.searchsorted(places, (start, start + len(runs)))
            found[order[first:end]] = runs[places[first:end] - start]
        yield found.tobytes()


def _runs(chunks: Iterable[bytes], width: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields runs of so many bytes, a part at a time, each part with the index of its first.

    Shapes:
        yields: (n, width), uint8.
    """
    start, rest = 0, b""
    for chunk in chunks:
        data = rest + chunk
        count = len(data) // width
        yield start, np.frombuffer(data, np.uint8, count * width).reshape(count, width)
        start, rest = start + count, data[count * width:]


def derived(tensor: Tensor, by: str, shape: Shape) -> Tensor:
    """Returns what is computed from a tensor, in a shape; the tensor itself if that is its own.

    Args:
        by: a name of `WAYS`.

    Raises:
        SourceError: it cannot be made from a tensor of its shape.
    """
    if tensor.shape == shape:
        return tensor
    places = WAYS[by](tensor.shape, shape)
    if places is None:
        raise SourceError(f"{tensor.file}: {tensor.name} has the shape {list(tensor.shape)}, from "
                          f"which {list(shape)} cannot be computed",
                          hint="config.json and the weights must be of the same model")
    size = tensor.size_bytes // int(np.prod(tensor.shape)) * int(np.prod(shape))
    return Derived(name=tensor.name, dtype=tensor.dtype, shape=shape, file=tensor.file,
                   start=tensor.start, size_bytes=size, stored=tensor, places=places)


def center_crop(stored: Shape, wanted: Shape) -> np.ndarray | None:
    """Returns the places of the middle of a square table of positions, in runs of D; None if it is
    none, or too small.

    Shapes:
        stored: (1, side * side, D); wanted: (h, w, D); returns: (h, w).
    Source:
        Esser et al. 2024 (arXiv 2403.03206), appendix B.2; diffusers' `PatchEmbed`.
    """
    if len(stored) != 3 or len(wanted) != 3 or (stored[0], stored[2]) != (1, wanted[2]):
        return None
    side = round(stored[1] ** 0.5)
    height, width, _ = wanted
    if side * side != stored[1] or height > side or width > side:
        return None
    top, left = (side - height) // 2, (side - width) // 2
    return side * np.arange(top, top + height)[:, None] + np.arange(left, left + width)


def relative_bias(stored: Shape, wanted: Shape) -> np.ndarray | None:
    """Returns the places of T5's bias of attention between any two tokens, which it has by their
    distance; None if the table has no such heads.

    Distances of either sign have half of the buckets each: one for each small distance, and beyond
    that one for each of equal ratios.

    Shapes:
        stored: (buckets, heads); wanted: (heads, S, S), by the token that looks and the one that it
        looks at.
    """
    if len(stored) != 2 or len(wanted) != 3 or stored[1] != wanted[0] or stored[0] < 4:
        return None
    buckets, heads = stored
    places = np.arange(wanted[1])
    away = places[None, :] - places[:, None]
    half = buckets // 2
    exact = half // 2
    distance = np.abs(away)
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    far = exact + (ratio / np.float32(np.log(_MOST_DISTANCE / exact)) * (half - exact)).astype(int)
    bucket = np.where(distance < exact, distance, np.minimum(far, half - 1)) + (away > 0) * half
    return bucket[None] * heads + np.arange(heads)[:, None, None]


WAYS: Mapping[str, Callable[[Shape, Shape], np.ndarray | None]] = {
    "center_crop": center_crop, "relative_bias": relative_bias,
}
"""Functions that compute a tensor's indices into another one's runs, by name."""
