"""Size against quality, drawn by matplotlib as an SVG that takes its colours from the page."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdbuild.base.printable import printable
from sdbuild.reports.page.report import Variant
from sdbuild.reports.verdict import BROKEN_DB, SAME_DB

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _MUTED, _GRID = "#010101", "#020202", "#030303"
_SERIES = ("#040404", "#050505", "#060606", "#070707", "#080808", "#090909")
_COLOURS = {_INK: "--ink", _MUTED: "--muted", _GRID: "--line"} | {
    colour: f"--series-{number}" for number, colour in enumerate(_SERIES, 1)}
"""Placeholder colours that matplotlib writes into the SVG, and the CSS property put in place of
each."""
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "sdbuild", "font.size": 10, "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED, "xtick.color": _MUTED, "ytick.color": _MUTED, "text.color": _INK,
    "xtick.labelcolor": _MUTED, "ytick.labelcolor": _MUTED, "text.usetex": False,
    "text.parse_math": False,
}
_STYLE = re.compile(r"<style.*?</style>|<metadata>.*?</metadata>", re.DOTALL)
_INCH = 72
_MARGIN_DB = 6
_LONGEST = 28
"""Characters of a label."""


def plot(variants: Sequence[Variant], width: int = 720, height: int = 340) -> str:
    """Returns the SVG of the bundles' bytes and the PSNR of their worst images, a line for each
    series; empty if fewer than two have been compared.

    Where nothing differs a point is above all others, where an image is not finite, at the bottom.
    Units:
        width, height: in pixels.
    """
    points = [v for v in variants if v.worst_db is not None]
    if len(points) < 2:
        return ""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the browser has what DejaVu Sans has not
        figure = Figure(figsize=(width / _INCH, height / _INCH), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        _draw(axes, points)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return _inlined(file.getvalue())


def _draw(axes: Axes, points: Sequence[Variant]) -> None:
    finite = [v.worst_db for v in points if v.worst_db is not None and math.isfinite(v.worst_db)]
    top = max([*finite, SAME_DB]) + _MARGIN_DB

    def height(variant: Variant) -> float:
        found = variant.worst_db or 0.0
        return 0.0 if math.isnan(found) else min(found, top)

    for level, word in ((SAME_DB, "same"), (BROKEN_DB, "broken below")):
        axes.axhline(level, color=_GRID, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        axes.annotate(word, (1, level), xycoords=("axes fraction", "data"), xytext=(-2, 3),
                      textcoords="offset points", ha="right", color=_MUTED, fontsize=9)
    for number, series in enumerate(dict.fromkeys(v.series for v in points)):
        line = sorted((v for v in points if v.series == series), key=lambda v: v.size_bytes)
        colour = _SERIES[number % len(_SERIES)]
        sizes, levels = [v.size_bytes / 1e6 for v in line], [height(v) for v in line]
        axes.plot(sizes, levels, color=colour, marker="o", markersize=6, linewidth=1.5,
                  label=f"\u200b{_short(series)}")  # a name that begins with _ would not be listed
        for x, y, variant in zip(sizes, levels, line, strict=True):
            axes.annotate(_short(variant.label), (x, y), xytext=(0, 8), textcoords="offset points",
                          ha="center", fontsize=9)
    axes.set_ylim(0, top + _MARGIN_DB)
    axes.margins(x=0.12)
    axes.set_xlabel("size, MB")
    axes.set_ylabel("worst image, dB")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0)
    if len({v.series for v in points}) > 1:
        axes.legend(frameon=False, fontsize=9)


def _short(text: str) -> str:
    found = printable(text)
    return found if len(found) <= _LONGEST else f"{found[:_LONGEST - 1]}…"


def _inlined(svg: str) -> str:
    """Returns an SVG as an element of a page, with the page's colours."""
    found = _STYLE.sub("", svg[svg.index("<svg"):])
    for colour, name in _COLOURS.items():
        found = found.replace(colour, f"var({name})")
    return found
