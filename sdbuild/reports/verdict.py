"""Verdicts on a bundle, by the PSNR of its pictures to those of the original.

The thresholds are measured on the built-in model; see docs/decisions/0030-verdicts.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SAME_DB = 28.0
"""From here on a picture is the original's: an error of 10 of 255 levels."""
BROKEN_DB = 14.0
"""Below, it is noise, or another picture."""

SAME = "same"
WORDS = ("broken", "changed", SAME)
"""The verdicts, the worst first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture of a bundle beside its original's; `psnr_db` is NaN if it has none, as the network
    gave numbers that are not finite, and infinite if nothing differs."""

    prompt: str
    seed: int
    psnr_db: float

    @property
    def verdict(self) -> str:
        """One of `WORDS`."""
        if self.psnr_db >= SAME_DB:
            return SAME
        return "changed" if self.psnr_db >= BROKEN_DB else "broken"


def verdict(pictures: Sequence[Picture]) -> str:
    """Returns the verdict on a bundle: that on the worst of its pictures, at least one."""
    return min((picture.verdict for picture in pictures), key=WORDS.index)
