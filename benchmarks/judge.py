"""Tells which concept a picture of tiny-emoji shows: the nearest of its reference icons.

A picture is shrunk to 32×32, its background read from the border, and every icon laid over that
colour at a few sizes and places; the one with the least squared distance wins. Only the icon is
compared, so the answer does not depend on the background.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

REFERENCES = Path(__file__).parent / "tiny-emoji-refs.npz"
_SIDE = 32
_OVERSAMPLED = 4
_SCALES = (0.72, 0.76, 0.80, 0.84, 0.88)
_SHIFTS = (-2, -1, 0, 1, 2)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The icon recognized in a picture; `explained` is 1 for a perfect copy and 0 for an empty
    background."""

    concept: str
    background: str
    explained: float


class Judge:
    """Holds the reference icons, laid out at every scale and place."""

    def __init__(self, references: Path = REFERENCES) -> None:
        found = np.load(references)
        self.concepts = [str(name) for name in found["names"]]
        self.backgrounds = [str(name) for name in found["background_names"]]
        self._background_rgb = found["background_rgb"].astype(np.float32) / 255
        laid = [(index, tile) for index, icon in enumerate(found["icons"]) for tile in _laid(icon)]
        self._owner = np.array([index for index, _ in laid])
        pixels = np.stack([tile for _, tile in laid])  # (N, 32, 32, 4)
        self._alpha = pixels[..., 3].reshape(len(laid), -1)
        self._colour = (pixels[..., :3] * pixels[..., 3:]).reshape(len(laid), -1)

    @cached_property
    def _sums(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        by_pixel = self._colour.reshape(len(self._owner), -1, 3)
        crossed = (by_pixel * self._alpha[..., None]).sum(1)
        return (self._colour**2).sum(1), crossed, (self._alpha**2).sum(1)

    def __call__(self, image: Image.Image) -> Verdict:
        """The verdict on a picture."""
        small = image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX)
        pixels = np.asarray(small, np.float32) / 255
        ring = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
        background = np.median(ring, axis=0)
        signal = pixels - background
        # |signal - (colour - alpha × background)|², multiplied out into two products
        colours, crossed, alphas = self._sums
        cross = self._colour @ signal.ravel() - self._alpha @ (signal @ background).ravel()
        energy = colours - 2 * crossed @ background + alphas * (background @ background)
        distance = np.maximum((signal**2).sum() - 2 * cross + energy, 0)
        best = int(np.argmin(distance))
        nearest = int(((self._background_rgb - background) ** 2).sum(1).argmin())
        return Verdict(
            self.concepts[self._owner[best]], self.backgrounds[nearest],
            float(1 - distance[best] / max(float(energy[best]), 1e-6)),
        )


def _laid(icon: np.ndarray) -> list[np.ndarray]:
    """An RGBA icon at every scale and place, 32×32, from 0 to 1."""
    full = _SIDE * _OVERSAMPLED
    tiles = []
    for scale in _SCALES:
        size = round(full * scale)
        tile = Image.fromarray(icon).resize((size, size), Image.Resampling.BILINEAR)
        corner = (full - size) // 2
        for down in _SHIFTS:
            for right in _SHIFTS:
                canvas = Image.new("RGBA", (full, full))
                canvas.paste(tile, (corner + _OVERSAMPLED * right, corner + _OVERSAMPLED * down))
                small = canvas.resize((_SIDE, _SIDE), Image.Resampling.BOX)
                tiles.append(np.asarray(small, np.float32) / 255)
    return tiles
