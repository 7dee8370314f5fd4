"""How numbers and records are told to people."""

from __future__ import annotations

from sdbuild.store import Record


def size(count: float) -> str:
    """Bytes in the unit that fits: `13.1 MB`."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def made(record: Record) -> str:
    """What an artifact is and what it cost, in one line."""
    return (
        f"{record.seconds:6.1f} s  {size(record.peak_bytes):>8} memory"
        f"  {size(record.size_bytes):>8}  {record.key[:8]}"
    )
