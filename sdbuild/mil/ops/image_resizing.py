"""Other numbers of rows and columns: the last two dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

from sdbuild.mil.ops._types import Moved, T


def crop(x: T, crop_height: list[int], crop_width: list[int]) -> Moved[T]:
    (top, bottom), (left, right) = crop_height, crop_width
    return x[..., top:x.shape[-2] - bottom, left:x.shape[-1] - right]


def resize(
    x: T, shape: list[int], resized_dims: int, interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> T:
    """Resizes the last `resized_dims` dimensions to the last of `shape`; 0 keeps a size."""
    wanted = shape[len(shape) - resized_dims:]
    for axis, size in enumerate(wanted, x.ndim - resized_dims):
        size = size or x.shape[axis]
        if interpolation_mode == "NEAREST_NEIGHBOR":
            x = x.index_select(axis, _nearest(x.shape[axis], size, sampling_mode))
        else:
            x = _interpolate(x, axis, _grid(x.shape[axis], size, sampling_mode))
    return x


def resize_bilinear(
    x: T, target_size_height: int = 1, target_size_width: int = 1, sampling_mode: str = "DEFAULT"
) -> T:
    return resize(x, [target_size_height, target_size_width], 2, "LINEAR", sampling_mode)


def resize_nearest_neighbor(
    x: T, target_size_height: int, target_size_width: int
) -> Moved[T]:
    return resize(x, [target_size_height, target_size_width], 2, "NEAREST_NEIGHBOR")


def upsample_bilinear(
    x: T, scale_factor_height: float = 1, scale_factor_width: float = 1,
    align_corners: bool = True, half_pixel_centers: bool | None = None,
) -> T:
    if half_pixel_centers is None:
        half_pixel_centers = not align_corners
    mode = ("STRICT_ALIGN_CORNERS" if align_corners
            else "UNALIGN_CORNERS" if half_pixel_centers else "DEFAULT")
    return resize(x, _scaled(x, scale_factor_height, scale_factor_width), 2, "LINEAR", mode)


def upsample_nearest_neighbor(
    x: T, scale_factor_height: float = 1, scale_factor_width: float = 1
) -> Moved[T]:
    size = _scaled(x, scale_factor_height, scale_factor_width)
    return resize(x, size, 2, "NEAREST_NEIGHBOR")


def _scaled(x: Tensor, height: float, width: float) -> list[int]:
    return [int(x.shape[-2] * height), int(x.shape[-1] * width)]


def _nearest(size: int, wanted: int, sampling_mode: str) -> Tensor:
    """The position that each element is taken from.

    Raises:
        ValueError: a mode for which it is not known how Core ML breaks ties.
    """
    if sampling_mode not in ("DEFAULT", "UNALIGN_CORNERS"):
        raise ValueError(f"nearest neighbours with sampling_mode {sampling_mode!r}")
    shift = 0 if sampling_mode == "DEFAULT" else 1
    return (2 * torch.arange(wanted) + shift) * size // (2 * wanted)


def _grid(size: int, wanted: int, sampling_mode: str) -> Tensor:
    """The points of `range(size)` that are sampled.

    Source:
        coremltools, docstring of `resize_bilinear` (iOS 15).
    """
    steps = torch.arange(wanted, dtype=torch.float64)
    match sampling_mode:
        case "ALIGN_CORNERS" if wanted == 1:
            points = steps + (size - 1) / 2
        case "STRICT_ALIGN_CORNERS" | "ALIGN_CORNERS":
            points = steps * (size - 1) / max(wanted - 1, 1)
        case "DEFAULT":
            points = steps * size / wanted
        case "OFFSET_CORNERS":
            points = (steps + 0.5) * max(1, size - 1) / wanted
        case "UNALIGN_CORNERS":
            points = (steps + 0.5) * size / wanted - 0.5
        case _:
            raise ValueError(f"sampling_mode {sampling_mode!r}")
    return points.clamp(0, size - 1)


def _interpolate(x: Tensor, axis: int, points: Tensor) -> Tensor:
    """The values of `x` between its elements along `axis`."""
    low = points.floor().long()
    high = (low + 1).clamp(max=x.shape[axis] - 1)
    share = (points - low).to(x.dtype).reshape(-1, *[1] * (x.ndim - 1 - axis))
    return x.index_select(axis, low) * (1 - share) + x.index_select(axis, high) * share
