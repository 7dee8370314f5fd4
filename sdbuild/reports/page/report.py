"""The nouns of a report: a bundle and what is known of it, and several of them side by side.

All figures are JSON's: a PSNR is None where nothing differs, and where `is_finite` is false.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sdbuild.bundle.compatibility import Verdict
from sdbuild.bundle.manifest import OWN_BITS
from sdbuild.bundle.rules.rule import ERROR, Violation
from sdbuild.reports.verdict import SAME, WORDS

NOT_JUDGED = "not judged"
"""The verdict where there is nothing to compare images with."""
REFERENCE = "reference"
"""The verdict on the bundle that the others are compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """An image that others are compared with, and the settings that it was generated with; `image`
    is its digest."""

    prompt: str
    seed: int
    settings: Mapping[str, Any]
    image: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Images that bundles are compared with, and who generated them.

    `is_original`: they are those of the checkpoint in PyTorch, and not of a folder or a bundle.
    """

    name: str
    is_original: bool
    originals: tuple[Original, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image of a bundle, in the order of its sheet; `image` is its digest, empty if it is not
    finite."""

    prompt: str
    seed: int
    psnr_db: float | None
    is_finite: bool
    verdict: str
    image: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """The parity of one output of a component, the worst of its samples, and its floor if it has
    one."""

    name: str
    psnr_db: float | None
    is_finite: bool
    floor_db: float | None

    @property
    def is_below(self) -> bool:
        """Whether it is below its floor, or not finite."""
        if not self.is_finite:
            return True
        if self.psnr_db is None or self.floor_db is None:
            return False
        return self.psnr_db < self.floor_db


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A component of a bundle; without outputs where its parity was not measured.

    `nbits` are those of all its weights, unless each `has_own_bits`.
    """

    name: str
    models: tuple[str, ...]
    size_bytes: int
    nbits: int | None
    has_own_bits: bool = False
    activations: int | None = None
    outputs: tuple[Output, ...]

    @property
    def weights_word(self) -> str:
        """The word for the bits of its weights."""
        if self.activations:
            return f"W{self.nbits}A{self.activations}"
        return OWN_BITS if self.has_own_bits else f"{self.nbits} bit" if self.nbits else "fp16"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """An operation that loses precision by computing in fp16.

    `layer` is that of the weights it uses, or of the last ones before it. `snr_db` is the ratio of
    its result to the error in it, None if it is not finite; `lost_db` what it added to that error.
    """

    component: str
    model: str
    operation: str
    type: str
    layer: str
    snr_db: float | None
    lost_db: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """A step that went into a bundle, or measured it, and what it cost: nothing where it
    `is_shipped`, as what it makes came with sdbuild."""

    step: str
    seconds: float
    peak_bytes: int
    size_bytes: int
    made_at: str
    is_shipped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts of a bundle that need no images.

    Attributes:
        sources: the digests of the files that it was made from.
        command: the one that builds it again.
    """

    name: str
    size_bytes: int
    parts: tuple[Part, ...]
    violations: tuple[Violation, ...]
    hosts: tuple[Verdict, ...]
    licence: str
    sources: Mapping[str, str]
    tools: Mapping[str, str]
    command: str

    @property
    def is_palettized(self) -> bool:
        """True if any component is palettized."""
        return any(part.nbits for part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant(Facts):
    """A bundle in a report: its facts, its images, and its costs.

    Attributes:
        label: its difference from the others, as short as possible.
        series: those with the same one are a line in the plot.
        sheet: the number of the sheet that its images are compared with.
        verdict: one of `WORDS`, `NOT_JUDGED` or `REFERENCE`.
        accepted: the reason to accept broken images; empty if there is none.
        notes: assumptions about it.
    """

    label: str
    series: str
    place: str
    verdict: str
    accepted: str
    sheet: int | None
    images: tuple[Image, ...]
    losses: tuple[Loss, ...]
    costs: tuple[Cost, ...]
    notes: tuple[str, ...]

    @property
    def worst_db(self) -> float | None:
        """Returns the PSNR of its worst image in dB: infinity if nothing differs, NaN if one is not
        finite; None if there are none to compare."""
        if not self.images or self.verdict not in WORDS:
            return None
        if not all(image.is_finite for image in self.images):
            return float("nan")
        return min(float("inf") if i.psnr_db is None else i.psnr_db for i in self.images)

    @property
    def problems(self) -> list[str]:
        """Returns why it is not good, in words; empty if it is."""
        found = [f"{part.name}.{output.name} is below its floor"
                 for part in self.parts for output in part.outputs if output.is_below]
        errors = sum(violation.level == ERROR for violation in self.violations)
        if errors:
            found.append(f"{errors} rules of hosts are broken")
        if self.verdict == "broken" and not self.accepted:
            found.append("its images are broken")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Bundles side by side. `pictures` are the bytes of images by their digests, in WebP."""

    title: str
    sheets: tuple[Sheet, ...]
    variants: tuple[Variant, ...]
    command: str
    software: str
    pictures: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def verdict(self) -> str:
        """Returns `bad` if a variant has problems, `changed` if images are, `not judged` if there
        are none, else `good`."""
        words = {variant.verdict for variant in self.variants}
        if any(variant.problems for variant in self.variants):
            return "bad"
        if words & {"changed", "broken"}:
            return "changed"
        return "good" if SAME in words else NOT_JUDGED

    @property
    def smallest(self) -> Variant | None:
        """Returns the smallest bundle with the images of the original; None if there is none."""
        same = [variant for variant in self.variants if variant.verdict == SAME]
        return min(same, key=lambda variant: variant.size_bytes, default=None)

    def to_json(self) -> dict[str, Any]:
        """Returns all figures."""
        found = asdict(self)
        del found["pictures"]
        for variant, entry in zip(self.variants, found["variants"], strict=True):
            entry["problems"] = variant.problems
        return found | {"verdict": self.verdict}

    def to_html(self) -> str:
        """Returns the page, which needs nothing else."""
        from sdbuild.reports.page.html import page

        return page(self)
