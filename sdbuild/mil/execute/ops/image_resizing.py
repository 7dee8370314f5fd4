"""Other numbers of rows and columns: the last two dimensions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sdbuild.mil.execute.ops._sampling import bilinear, nearest, pixels
from sdbuild.mil.execute.ops._types import Any_, I, Moved, T, U

_SAMPLERS = {"bilinear": bilinear, "nearest": nearest}


def affine(
    x: T, transform_matrix: T, output_height: int, output_width: int, sampling_mode: str,
    padding_mode: str, padding_value: float, coordinates_mode: str, align_corners: bool,
) -> T:
    """Samples where each place of the result lies after the transform.

    Shapes:
        x: (B, C, H, W); transform_matrix: (B or 1, 6); returns (B, C, height, width)
    """
    matrices = transform_matrix.reshape(-1, 2, 3).expand(x.shape[0], 2, 3)
    size = [*x.shape[:2], output_height, output_width]
    grid = F.affine_grid(matrices, size, align_corners=align_corners)  # (B, height, width, 2)
    return resample(x, grid, sampling_mode, padding_mode, padding_value, coordinates_mode,
                    align_corners)


def resample(
    x: T, coordinates: Any_, sampling_mode: str, padding_mode: str, padding_value: float,
    coordinates_mode: str, align_corners: bool,
) -> T:
    """Samples at `coordinates`, which are (column, row).

    Shapes:
        x: (B, C, H, W); coordinates: (B, h, w, 2); returns (B, C, h, w)
    """
    columns, rows = (
        pixels(points.float(), size, coordinates_mode, align_corners)
        for points, size in zip(coordinates.unbind(-1), (x.shape[-1], x.shape[-2]), strict=True)
    )
    return _SAMPLERS[sampling_mode](x, rows, columns, padding_mode, padding_value)


def crop_resize(
    x: T, roi: U | None = None, boxes: U | None = None, box_indices: I | None = None,
    target_height: int = 1, target_width: int = 1, normalized_coordinates: bool = False,
    spatial_scale: float = 1.0, box_coordinate_mode: str = "CORNERS_HEIGHT_FIRST",
    sampling_mode: str = "DEFAULT", pad_value: float = 0.0,
) -> T:
    """Boxes of `x`, each resized; what lies outside is `pad_value`.

    Shapes:
        x: (B, C, H, W)
        iOS 15: roi: (N, 1, 4, 1, 1), or with 5 the number of its image first;
            returns (N, B or 1, C, height, width)
        iOS 17: boxes: (N, 4); box_indices: (N,); returns (N, C, height, width)
    """
    given = boxes if boxes is not None or roi is None else roi.flatten(1)
    if given is None:
        raise ValueError("neither roi nor boxes")
    images = list(range(len(x))) if box_indices is None else box_indices.tolist()
    crops = []
    for position, box in enumerate(given.float()):
        source = x if boxes is None else x[images[position]].unsqueeze(0)
        if len(box) == 5:
            source, box = x[int(box[0])].unsqueeze(0), box[1:]
        corners = _corners(box, box_coordinate_mode) * spatial_scale
        if normalized_coordinates:
            corners = corners * (torch.tensor(x.shape[-2:]) - 1)
        size = (target_height, target_width)
        crops.append(_cropped(source, corners, size, sampling_mode, pad_value))
    return torch.stack(crops) if boxes is None else torch.cat(crops)


def _corners(box: Tensor, mode: str) -> Tensor:
    """The first and last point of a box, as (row, column).

    Shapes:
        box: (4,); returns (2, 2)
    """
    pairs = box.reshape(2, 2)
    if mode.endswith("WIDTH_FIRST"):
        pairs = pairs.flip(1)
    if mode.startswith("CENTER_SIZE"):
        pairs = torch.stack([pairs[0] - pairs[1] / 2, pairs[0] + pairs[1] / 2])
    return pairs


def _cropped(
    x: Tensor, corners: Tensor, size: tuple[int, int], sampling_mode: str, pad_value: float
) -> Tensor:
    """A box of some images, sampled from corner to corner.

    Raises:
        ValueError: a mode of which it is not known how Core ML applies it to a box.
    Shapes:
        x: (B, C, H, W); corners: (2, 2); returns (B, C, *size)
    """
    if sampling_mode not in ("ALIGN_CORNERS", "STRICT_ALIGN_CORNERS"):
        raise ValueError(f"boxes with sampling_mode {sampling_mode!r}")
    points = []
    for first, last, count in zip(*corners.tolist(), size, strict=True):
        if count == 1 and sampling_mode == "ALIGN_CORNERS":
            first = (first + last) / 2
        points.append(torch.linspace(first, last, count))
    rows, columns = (p.expand(len(x), *size) for p in torch.meshgrid(*points, indexing="ij"))
    height, width = x.shape[-2:]
    inside = (rows >= 0) & (rows <= height - 1) & (columns >= 0) & (columns <= width - 1)
    sampled = bilinear(x, rows, columns, "border", 0)
    return torch.where(inside.unsqueeze(1), sampled, pad_value)


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
            x = x.index_select(axis, _rounded_grid(x.shape[axis], size, sampling_mode))
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
    return _repeated(x, target_size_height, target_size_width)


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
    return _repeated(x, *_scaled(x, scale_factor_height, scale_factor_width))


def _scaled(x: Tensor, height: float, width: float) -> list[int]:
    return [int(x.shape[-2] * height), int(x.shape[-1] * width)]


def _repeated(x: Tensor, height: int, width: int) -> Tensor:
    """Each pixel as often as it takes: the position is that of the result, scaled, rounded down."""
    for axis, size in ((-2, height), (-1, width)):
        x = x.index_select(axis, torch.arange(size) * x.shape[axis] // size)
    return x


def _rounded_grid(size: int, wanted: int, sampling_mode: str) -> Tensor:
    """The position nearest to each point of `_grid`; halves go down.

    Source:
        coremltools 9.0, `ops/tests/iOS17/test_image_resizing.py`: two pixels resized to three are
        0, 1, 1. That doubling repeats each pixel, and so halves go down, is our assumption.
    Raises:
        ValueError: a mode for which it is not known how Core ML breaks ties.
    """
    if sampling_mode not in ("DEFAULT", "UNALIGN_CORNERS"):
        raise ValueError(f"nearest neighbours with sampling_mode {sampling_mode!r}")
    if sampling_mode == "UNALIGN_CORNERS":
        return (2 * torch.arange(wanted) + 1) * size // (2 * wanted)
    positions = -((wanted - 2 * size * torch.arange(wanted)) // (2 * wanted))
    return positions.clamp(0, size - 1)


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
