"""Tables for a terminal and JSON for machines, of rows that are dataclasses."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, cast

_WIDEST = 60


def print_rows(
    options: argparse.Namespace, key: str, rows: Sequence[object], columns: Sequence[str]
) -> None:
    """Prints rows that are dataclasses or mappings as a table, or as JSON under `key`."""
    plain = [row if isinstance(row, Mapping) else asdict(cast(Any, row)) for row in rows]
    print(format_json({key: plain}) if options.json else format_table(plain, columns))


def format_table(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> str:
    """Returns a table with a line of heads; numbers are on the right of their columns."""
    lines = [list(columns), *([_cell(row[column]) for column in columns] for row in rows)]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    numeric = [bool(rows) and isinstance(rows[0][column], int | float) for column in columns]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def _cell(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}"
        case tuple() | list():
            return printable(f"[{', '.join(map(str, value))}]")
    text = printable(str(value))
    return text if len(text) <= _WIDEST else f"{text[:_WIDEST - 1]}…"


def printable(text: str) -> str:
    """Returns `text` with what could drive a terminal written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def format_json(content: object) -> str:
    """JSON with two spaces of indentation; what is no finite number is a string."""
    return json.dumps(_plain(content), indent=2, ensure_ascii=True, allow_nan=False)


def _plain(content: object) -> object:
    if is_dataclass(content) and not isinstance(content, type):
        return _plain(asdict(content))
    match content:
        case Mapping():
            return {str(key): _plain(value) for key, value in content.items()}
        case tuple() | list():
            return [_plain(item) for item in content]
        case Path():
            return str(content)
        case float() if not math.isfinite(content):
            return str(content)
    return content


def format_bytes(count: int) -> str:
    """Returns a number of bytes in the unit that reads best."""
    size = float(count)
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{count} bytes" if unit == "bytes" else f"{size:.3g} {unit}"
