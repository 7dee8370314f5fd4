"""Images read at points between their pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def pixels(points: Tensor, size: int, mode: str, align_corners: bool) -> Tensor:
    """Coordinates along an axis of `size` pixels, in pixels.

    If corners align, the extremes are the centres of the first and last pixel, else their edges.

    Raises:
        ValueError: `mode` is not known.
    """
    match mode:
        case "unnormalized":
            return points
        case "normalized_minus_one_to_one":
            shares = (points + 1) / 2
        case "normalized_zero_to_one":
            shares = points
        case _:
            raise ValueError(f"coordinates_mode {mode!r}")
    return shares * (size - 1) if align_corners else shares * size - 0.5


def nearest(x: Tensor, rows: Tensor, columns: Tensor, padding: str, value: float) -> Tensor:
    """The pixels nearest to points; halves go up.

    Shapes:
        x: (B, C, H, W); rows, columns: (B, h, w); returns (B, C, h, w)
    """
    return _gather_pixels(x, (rows + 0.5).floor(), (columns + 0.5).floor(), padding, value)


def bilinear(x: Tensor, rows: Tensor, columns: Tensor, padding: str, value: float) -> Tensor:
    """The values between the four pixels around points.

    Shapes:
        x: (B, C, H, W); rows, columns: (B, h, w); returns (B, C, h, w)
    """
    top, left = rows.floor(), columns.floor()
    down, right = (rows - top).unsqueeze(1), (columns - left).unsqueeze(1)  # -> (B, 1, h, w)
    out = torch.zeros(())
    for row, row_share in ((top, 1 - down), (top + 1, down)):
        for column, column_share in ((left, 1 - right), (left + 1, right)):
            pixel = _gather_pixels(x, row, column, padding, value)
            out = out + pixel * row_share * column_share
    return out


def _gather_pixels(x: Tensor, rows: Tensor, columns: Tensor, padding: str, value: float) -> Tensor:
    """The pixels at whole coordinates, those outside by the padding."""
    height, width = x.shape[-2:]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)  # (B, h, w)
    rows, columns = _folded(rows, height, padding), _folded(columns, width, padding)
    batch = torch.arange(x.shape[0])[:, None, None]
    found = x[batch, :, rows, columns].movedim(-1, 1)  # (B, h, w, C) -> (B, C, h, w)
    return torch.where(inside.unsqueeze(1), found, value) if padding == "constant" else found


def _folded(points: Tensor, size: int, padding: str) -> Tensor:
    """Whole coordinates, folded into `range(size)`.

    Raises:
        ValueError: `padding` is not known.
    """
    points = points.long()
    match padding:
        case "constant" | "border":
            return points.clamp(0, size - 1)
        case "reflection":  # 2 1 | 0 1 2 | 1 0
            folded = points.remainder(max(2 * size - 2, 1))
            return torch.minimum(folded, 2 * size - 2 - folded)
        case "symmetric":  # 1 0 | 0 1 2 | 2 1
            folded = points.remainder(2 * size)
            return torch.minimum(folded, 2 * size - 1 - folded)
    raise ValueError(f"padding_mode {padding!r}")
