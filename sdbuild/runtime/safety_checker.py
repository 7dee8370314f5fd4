"""The safety checker of a bundle: whether a picture shows what it was made to find.

Hosts check every picture if a bundle has a checker, and so do we.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from sdbuild.base.errors import BundleError
from sdbuild.bundle.hosts import LOOK_OF_CLIP, Look
from sdbuild.runtime.predictor import Predictor


class SafetyChecker:
    """Looks at finished pictures, of any size."""

    def __init__(self, chain: Predictor, name: str) -> None:
        self._chain, self._name = chain, name

    def flags(self, picture: Image.Image, look: Look = LOOK_OF_CLIP) -> bool:
        """Whether it finds one of its concepts in a picture, shown as a host does.

        Raises:
            BundleError: it gives no scores, or none that are finite: every picture would pass.
        """
        shapes = self._chain.shapes
        found = self._chain.predict({
            "clip_input": seen(picture, shapes["clip_input"][-1], look),
            "images": np.zeros(shapes["images"], np.float32),  # not ours: hosts send some too
            "adjustment": np.zeros(shapes["adjustment"], np.float32),
        })
        if not {"concept_scores", "has_nsfw_concepts"} <= found.keys():
            raise BundleError(f"{self._name}: the safety checker gave {', '.join(found)}, "
                              "expected concept_scores and has_nsfw_concepts")
        if not np.isfinite(found["concept_scores"]).all():
            raise BundleError(
                f"{self._name}: the safety checker gave scores that are not finite",
                hint="sdbuild check names the operation that made them",
            )
        return bool(found["has_nsfw_concepts"].any())


def seen(picture: Image.Image, side_px: int, look: Look = LOOK_OF_CLIP) -> np.ndarray:
    """Returns a picture as it is shown to a checker: its shorter side resized and its middle cut
    out, or squeezed; normalized.

    Shapes:
        returns (1, 3, side_px, side_px).
    Source:
        transformers 5.23, `CLIPImageProcessorPil` (Apache 2.0), as Stable Diffusion configures it;
        apple/ml-stable-diffusion at 583cc04, `SafetyChecker.swift`, whose filter is Core Graphics'.
    """
    rgb = picture.convert("RGB")
    if look.is_squeezed:
        cut = rgb.resize((side_px, side_px), Image.Resampling.LANCZOS)
    else:
        shorter = min(picture.size)
        width, height = (side_px * side // shorter for side in picture.size)
        left, top = (width - side_px) // 2, (height - side_px) // 2
        resized = rgb.resize((width, height), Image.Resampling.BICUBIC)
        cut = resized.crop((left, top, left + side_px, top + side_px))
    levels = np.asarray(cut, np.float32) / 255  # (side, side, 3)
    mean, std = np.array(look.mean, np.float32), np.array(look.std, np.float32)
    return ((levels - mean) / std).transpose(2, 0, 1)[None]
