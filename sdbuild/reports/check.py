"""Parity against the recipe's floors."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdbuild.base.errors import ParityFailed
from sdbuild.recipe.recipe import Recipe
from sdbuild.store import Record, Store


def report(records: Mapping[str, Record], store: Store, recipe: Recipe) -> str:
    """A table of each component's worst PSNR and its floor.

    Args:
        records: the record of the parity step of each component.

    Raises:
        ParityFailed: a component is below its floor or not finite; the table is in the message.
    """
    lines, failed = [f"{'component':<16}{'output':<20}{'PSNR':>9}{'floor':>9}"], []
    for name, record in records.items():
        found = _parity(record, store)
        nbits = recipe.nbits_of(recipe.family.component(name))
        floor = recipe.floors[name].at(nbits)
        for output, worst in _worst(found).items():
            lines.append(f"{name:<16}{output:<20}{_db(worst):>9}{_db(floor):>9}")
            if worst != worst or (floor is not None and worst < floor):
                failed.append((name, output))
        lines += [f"  {text}" for text in found["nonfinite"]]
    table = "\n".join(lines)
    if failed:
        reasons = {name: recipe.floors[name].reason for name, _ in failed}
        raise ParityFailed(
            f"below the floor: {', '.join(f'{name}.{output}' for name, output in failed)}\n{table}",
            hint="\n".join(f"{name}: {why}; [floors.{name}] in the recipe may set another"
                           for name, why in reasons.items()),
        )
    return table


def _parity(record: Record, store: Store) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = store.checkout(record, Path(folder) / "parity.json", "parity.json")
        return json.loads(path.read_bytes())


def _worst(found: Mapping[str, Any]) -> dict[str, float]:
    """The least PSNR of each output in dB: NaN if it is not finite, infinity if nothing differs."""
    worst: dict[str, float] = {}
    for sample in found["samples"]:
        psnr = float("inf") if sample["psnr_db"] is None else sample["psnr_db"]
        if not sample["is_finite"]:
            psnr = float("nan")
        before = worst.get(sample["output"], psnr)
        worst[sample["output"]] = psnr if psnr != psnr else min(before, psnr)
    return worst


def _db(value: float | None) -> str:
    if value is None:
        return "-"
    return "NaN" if value != value else f"{value:.1f} dB"
