"""The two verdicts on a bundle: parity with its originals, and the quality of its pictures."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sdbuild.base.errors import CheckFailed
from sdbuild.recipe.recipe import Recipe
from sdbuild.reports.measured import drawn_pictures, nonfinite, worst_parity
from sdbuild.reports.verdict import Picture, verdict
from sdbuild.store import Record, Store

_COLUMNS = 80
PROMPT = 46
"""Columns of a prompt in the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The table of a bundle's images, and the problem with them and what helps, empty if there is
    none."""

    table: str
    problem: str = ""
    hint: str = ""


def report(
    records: Mapping[str, Record], pictures: Record | None, store: Store, recipe: Recipe
) -> str:
    """Two tables, each with a verdict: the worst PSNR of each component and its floor (is it the
    same program?), and the PSNR of each picture to the original's (does it draw the same picture?).

    Args:
        records: the record of the parity step of each component.
        pictures: the record of the pictures step; None if no image was generated.

    Raises:
        CheckFailed: a component is below its floor or not finite, or the pictures are broken and
            the recipe does not accept it; the tables are in the message.
    """
    table, failed = _parity(records, store, recipe)
    drawn = [] if pictures is None else drawn_pictures(pictures, store)
    is_accepted = recipe.packaging.is_palettized(recipe.components) and bool(recipe.check.reason)
    is_broken = bool(drawn) and verdict(drawn) == "broken" and not is_accepted
    accepted = f", as the recipe accepts: {recipe.check.reason}" if is_accepted else ""
    shown = f"{table}\n\n{quality(drawn, accepted) if drawn else _not_judged(recipe)}"
    problems, hints = [], []
    if failed:
        problems.append(f"below the floor: {', '.join(failed)}")
        names = dict.fromkeys(each.partition(".")[0] for each in failed)
        hints += [f"{name}: {recipe.check.floors[name].reason}; [floors.{name}] in the recipe may "
                  "set another" for name in names]
    if is_broken:
        problems.append("the bundle does not generate the original's images")
        hints.append(_hint(recipe))
    if problems:
        raise CheckFailed("\n".join([*problems, "", shown]), hint="\n".join(hints))
    return shown


def _parity(
    records: Mapping[str, Record], store: Store, recipe: Recipe
) -> tuple[str, list[str]]:
    """Returns the table of components with the verdict, and the outputs that are below their
    floors."""
    lines, failed = [f"{'component':<16}{'output':<20}{'PSNR':>9}{'floor':>9}"], []
    for name, record in records.items():
        component = recipe.component(name.partition("@")[0])  # of several sizes each has one
        packaging = recipe.packaging
        floor = recipe.check.floors[component.name].at(
            packaging.nbits_of(component), packaging.activations_of(component))
        for output, worst in worst_parity(record, store).items():
            lines.append(f"{name:<16}{output:<20}{decibels(worst):>9}{decibels(floor):>9}")
            if worst != worst or (floor is not None and worst < floor):
                failed.append(f"{name}.{output}")
        lines += [f"  {text}" for text in nonfinite(record, store)]
    lines.append(f"parity: {'below the floor' if failed else 'the same program'}")
    return "\n".join(lines), failed


def _not_judged(recipe: Recipe) -> str:
    reason = ("sdbuild check generates images" if recipe.can_generate
              else "generating needs text encoder, U-Net and VAE decoder")
    return f"quality: not judged: {reason}"


def quality(pictures: Sequence[Picture], accepted: str = "") -> str:
    """Returns the table of pictures with the verdict, and why it is accepted if it is broken."""
    lines = [f"{'picture':<{PROMPT}}{'seed':>5}{'PSNR':>9}  verdict"]
    lines += [f"{shortened(each.prompt)}{each.seed:>5}{decibels(each.psnr_db):>9}  {each.verdict}"
              for each in pictures]
    word = verdict(pictures)
    lines += textwrap.wrap(f"quality: {word}{accepted if word == 'broken' else ''}", _COLUMNS,
                           subsequent_indent="  ")
    return "\n".join(lines)


def shortened(prompt: str) -> str:
    """Returns a prompt as wide as its column."""
    return f"{textwrap.shorten(prompt, PROMPT - 1, placeholder='…'):<{PROMPT}}"


def compared(name: str, pictures: Sequence[Picture]) -> Judgement:
    """Returns the judgement on a bundle's images beside those of a reference.

    Args:
        name: that of the reference.
    """
    shown = f"compared with {name}\n{quality(pictures)}"
    if verdict(pictures) != "broken":
        return Judgement(table=shown)
    return Judgement(table=shown, problem="the bundle does not generate the reference's images",
                     hint="sdbuild report with the same against= shows them side by side")


def _hint(recipe: Recipe) -> str:
    if recipe.packaging.is_palettized(recipe.components):
        return ('use more bits, such as quant=6; or accept it in the recipe: [check] with\n'
                'accepts = "broken" and a reason')
    return ("without palettes no recipe accepts this: the conversion is wrong, or a\n"
            "network is not made for fp16; the table of components says which")


def decibels(value: float | None) -> str:
    """Returns a PSNR as it is printed; None where there is no floor."""
    if value is None:
        return "-"
    return "NaN" if value != value else f"{value:.1f} dB"
