"""A report made from finished bundles: what the store knows of each is read, the rest generated."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sdbuild import __version__
from sdbuild.base.errors import BundleError
from sdbuild.bundle.manifest import Bundle
from sdbuild.bundle.places import opened
from sdbuild.bundle.request import Request
from sdbuild.recipe.checking import Check
from sdbuild.reports.lineage import Lineage
from sdbuild.reports.page.album import Album
from sdbuild.reports.page.facts import facts_of
from sdbuild.reports.page.labels import labels
from sdbuild.reports.page.records import Judged, Known, known
from sdbuild.reports.page.report import (
    NOT_JUDGED,
    REFERENCE,
    Image,
    Loss,
    Original,
    Report,
    Sheet,
    Variant,
)
from sdbuild.reports.reference import Ask, Reference, generated
from sdbuild.reports.verdict import Picture, verdict
from sdbuild.store import Store

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A bundle's line in the plot, its label, and the command that built it."""

    series: str
    label: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of a report.

    Attributes:
        ask: returns the request to generate of a bundle without known images.
        reference: returns the reference of all, from the first bundle; None for each one's own
            original, or else the first.
        requests: those of the images to show; None for any.
        is_asked: images are generated even if the store has some.
        store: the one with its records.
        checks: what recipes say of how bundles that they built are measured, by place.
        command: the one that makes the report again.
        losses: the most operations of a component to list that lose precision.
        named: what is known of bundles that were built for this report, by place.
    Units:
        weight_bytes: of decoded weights that the executor keeps of a component, all if None.
    """

    ask: Ask
    reference: Callable[[Bundle], Reference | None] = lambda first: None
    requests: tuple[Request, ...] | None = None
    is_asked: bool = False
    store: Store | None = None
    checks: Mapping[Path, Check] = field(default_factory=dict)
    command: str = ""
    losses: int = 5
    named: Mapping[Path, Named] = field(default_factory=dict)
    predictor: str = "auto"
    weight_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """A bundle, where it was said to be, what is assumed of it, and what the store knows."""

    place: str
    bundle: Bundle
    notes: tuple[str, ...]
    known: Known | None
    judged: Judged | None


def report_on(
    places: Sequence[Path], options: Options, variant: str | None = None,
    prediction_type: str | None = None,
) -> Report:
    """Returns the report on the bundles at some places: folders, zips, or `hub:owner/name`.

    Raises:
        BundleError, MILError: one is none, or cannot draw.
        SourceError: the Hub does not have it.
        StepError: a record of it is not what a step writes.
    """
    store = options.store
    lineage = Lineage(store.records()) if store else None
    with ExitStack() as stack:
        found = [(place, *stack.enter_context(opened(place, variant, prediction_type)))
                 for place in places]
        reference = options.reference(found[0][1])
        bundles = []
        for place, bundle, notes in found:
            record = known(bundle.folder, store, lineage) if store and lineage else None
            is_new = bool(reference) or options.is_asked
            judged = record.judged(store) if store and record and not is_new else None
            if judged and options.requests not in (None, judged.requests):
                judged = None  # it was judged by other images
            bundles.append(_Opened(place=str(place), bundle=bundle, notes=tuple(notes),
                                   known=record, judged=judged))
        return _Maker(options, reference).report(bundles)


class _Maker:
    """Makes a report: its sheets grow as originals are met."""

    def __init__(self, options: Options, reference: Reference | None) -> None:
        self._options = options
        self._album = Album()
        self._sheets: dict[str, tuple[Reference, Sheet]] = {}
        if reference:
            self._sheet("", reference)

    def report(self, bundles: Sequence[_Opened]) -> Report:
        """Returns the report on the bundles, in their order."""
        for each in bundles:
            if each.judged:
                self._sheet(each.judged.key, Reference(
                    name=f"{each.bundle.name} in PyTorch, fp32", requests=each.judged.requests,
                    images=each.judged.originals), is_original=True)
        variants = [self._variant(each) for each in bundles]
        named = labels([variant.label for variant in variants])
        return Report(
            title=", ".join(dict.fromkeys(each.bundle.name for each in bundles)),
            sheets=tuple(sheet for _, sheet in self._sheets.values()),
            variants=tuple(replace(v, label=n) for v, n in zip(variants, named, strict=True)),
            command=self._options.command, software=f"sdbuild {__version__}",
            pictures=self._album.pictures,
        )

    def _sheet(self, key: str, reference: Reference, *, is_original: bool = False) -> None:
        if key in self._sheets:
            return
        originals = tuple(
            Original(prompt=request.prompt, seed=request.seed, settings=request.settings(),
                     image=self._album.add(image))
            for request, image in zip(reference.requests, reference.images, strict=True))
        self._sheets[key] = (reference, Sheet(
            name=reference.name, is_original=is_original, originals=originals))

    def _variant(self, each: _Opened) -> Variant:
        check = self._options.checks.get(Path(each.place))
        facts = facts_of(each.bundle, each.known, self._options.store,
                         check.floors if check else None)
        number, images, word, notes = self._images(each)
        accepted = check.reason if check and word == "broken" and facts.is_palettized else ""
        named = self._options.named.get(Path(each.place)) or Named(
            series=each.bundle.name, label=facts.name, command=facts.command)
        return Variant(
            **{own.name: getattr(facts, own.name) for own in fields(facts)} | asdict(named),
            place=each.place,
            verdict=word, accepted=accepted, sheet=number, images=images,
            losses=self._losses(each.bundle) if images and self._options.losses else (),
            costs=each.known.costs() if each.known else (), notes=(*each.notes, *notes),
        )

    def _images(self, each: _Opened) -> tuple[int | None, tuple[Image, ...], str, list[str]]:
        """Returns the number of a bundle's sheet, its images, the verdict, and what there is to
        note."""
        if each.judged:
            number = list(self._sheets).index(each.judged.key)
            pictures, made = each.judged.pictures, each.judged.images
            return number, self._of(pictures, made), verdict(pictures), []
        try:
            return self._compared(each)
        except BundleError as error:
            return None, (), NOT_JUDGED, [f"no images: {error.message}"]

    def _compared(self, each: _Opened) -> tuple[int | None, tuple[Image, ...], str, list[str]]:
        """Generates the images of the first sheet with a bundle; without one, they are the
        sheet."""
        options, word = self._options, ""
        if not self._sheets:
            requests = tuple(options.requests or options.ask(each.bundle))
            first = generated(each.bundle, requests, options.predictor, options.weight_bytes)
            self._sheet(each.place, Reference(name=each.bundle.description, requests=requests,
                                              images=tuple(first)))
            made, word = first, REFERENCE
        (reference, _), *_ = self._sheets.values()
        if not word:
            made = generated(each.bundle, reference.requests, options.predictor,
                             options.weight_bytes)
        pictures = reference.compared(made)
        return 0, self._of(pictures, made), word or verdict(pictures), []

    def _of(self, pictures: Sequence[Picture], made: Sequence[Pixels | None]) -> tuple[Image, ...]:
        return tuple(
            Image(prompt=p.prompt, seed=p.seed, is_finite=image is not None, verdict=p.verdict,
                  psnr_db=p.psnr_db if math.isfinite(p.psnr_db) else None,
                  image=self._album.add(image))
            for p, image in zip(pictures, made, strict=True))

    def _losses(self, bundle: Bundle) -> tuple[Loss, ...]:
        """Returns where a bundle that can draw loses precision."""
        from sdbuild.reports.page.precision import precision

        options = self._options
        request = next(iter(options.requests or options.ask(bundle)))
        return tuple(precision(bundle, request, options.losses, options.weight_bytes))
