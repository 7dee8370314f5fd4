"""The safety checker of a bundle: whether a picture shows what it was made to find.

Hosts check every picture if a bundle has a checker, and so do we.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from sdbuild.base.errors import BundleError
from sdbuild.runtime.predictor import Predictor

_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
"""Of the pictures that CLIP was trained on, by channel; levels are from 0 to 1.

Source:
    `feature_extractor/preprocessor_config.json` of the published checkpoints. Apple's Swift package
    has other numbers here, and squeezes pictures where these are cut; see `docs/formats/bundle.md`.
"""


class SafetyChecker:
    """Looks at finished pictures, of any size."""

    def __init__(self, chain: Predictor, name: str) -> None:
        self._chain, self._name = chain, name

    def flags(self, picture: Image.Image) -> bool:
        """Whether it finds one of its concepts in a picture.

        Raises:
            BundleError: it gives no scores, or none that are finite: every picture would pass.
        """
        shapes = self._chain.shapes
        found = self._chain.predict({
            "clip_input": seen_by_clip(picture, shapes["clip_input"][-1]),
            "images": np.zeros(shapes["images"], np.float32),  # not ours: hosts send some too
            "adjustment": np.zeros(shapes["adjustment"], np.float32),
        })
        if not {"concept_scores", "has_nsfw_concepts"} <= found.keys():
            raise BundleError(f"{self._name}: the safety checker gave {', '.join(found)}, "
                              "expected concept_scores and has_nsfw_concepts")
        if not np.isfinite(found["concept_scores"]).all():
            raise BundleError(
                f"{self._name}: the safety checker gave scores that are not finite",
                hint="doit check names the operation that made them",
            )
        return bool(found["has_nsfw_concepts"].any())


def seen_by_clip(picture: Image.Image, side_px: int) -> np.ndarray:
    """Returns a picture as CLIP takes it: its shorter side resized, its middle cut out, normalized.

    Shapes:
        returns (1, 3, side_px, side_px).
    Source:
        transformers 5.23, `CLIPImageProcessorPil` (Apache 2.0), as Stable Diffusion configures it.
    """
    shorter = min(picture.size)
    width, height = (side_px * side // shorter for side in picture.size)
    left, top = (width - side_px) // 2, (height - side_px) // 2
    resized = picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    cut = resized.crop((left, top, left + side_px, top + side_px))
    levels = np.asarray(cut, np.float32) / 255  # (side, side, 3)
    return ((levels - _MEAN) / _STD).transpose(2, 0, 1)[None]
