"""Size against quality as text: bundles of several bits, and the smallest that is good enough."""

from __future__ import annotations

from sdbuild.base.units import counted, size
from sdbuild.reports.check import decibels
from sdbuild.reports.page.report import Report

_LABEL = 34
"""Columns of a label in the table."""


def table(report: Report) -> str:
    """Returns the size, the worst image and the verdict of each bundle."""
    lines = [f"{'bundle':<{_LABEL}}{'size':>10}{'worst image':>14}  verdict"]
    for each in report.variants:
        label = each.label if len(each.label) < _LABEL else f"{each.label[:_LABEL - 2]}…"
        lines.append(f"{label:<{_LABEL}}{size(each.size_bytes):>10}"
                     f"{decibels(each.worst_db):>14}  {each.verdict}")
    return "\n".join(lines)


def conclusion(report: Report) -> str:
    """Returns one sentence: the smallest bundle with the original's images, and its command."""
    best = report.smallest
    if best is None:
        return (f"none of {counted(len(report.variants), 'bundle')} generates the original's "
                "images: try more bits")
    return (f"{best.label} is the smallest that generates the original's images, "
            f"{size(best.size_bytes)}: {best.command}")
