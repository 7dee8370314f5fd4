"""Reads the facts of a finished bundle: its parts, its rules and hosts, its provenance."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from sdbuild.base.errors import BundleError
from sdbuild.base.parsing import Fields
from sdbuild.bundle.bundle_reader import open_bundle
from sdbuild.bundle.compatibility import verdicts
from sdbuild.bundle.contract import violations
from sdbuild.bundle.inferred import name_of
from sdbuild.bundle.manifest import MANIFEST, Bundle, own_bits, read_manifest
from sdbuild.bundle.places import as_compiled
from sdbuild.families import FAMILIES, Floor
from sdbuild.reports.lineage import variant
from sdbuild.reports.page.records import Known
from sdbuild.reports.page.report import Facts, Output, Part
from sdbuild.store import Store
from sdbuild.store.scan import files


def facts_of(
    bundle: Bundle, known: Known | None, store: Store | None,
    floors: Mapping[str, Floor] | None = None,
) -> Facts:
    """Returns the facts of a bundle.

    Args:
        known: its records in the store, which tell its parity.
        floors: of its components; those of its family where they are None.

    Raises:
        BundleError: a field of its manifest is not what it must be.
    """
    has_manifest = (bundle.folder / MANIFEST).is_file()
    manifest = read_manifest(bundle.folder) if has_manifest else Fields(
        {}, str(bundle.folder), BundleError)
    if floors is None:
        family = FAMILIES.get(bundle.family)
        floors = {c.name: c.floor for c in family.components} if family else {}
    parity = known.parity(store) if known and store else {}
    with as_compiled(bundle.folder) as (compiled, _):
        broken, hosts = violations(compiled), verdicts(open_bundle(compiled))
    return Facts(
        name=variant(known.bundle) if known else name_of(bundle.folder),
        size_bytes=_size(bundle.folder),
        parts=tuple(_parts(bundle, manifest, parity, floors)),
        violations=broken, hosts=hosts,
        licence=str(manifest.values.get("licence") or ""),
        sources=dict(_made_from(manifest, "source")), tools=dict(_made_from(manifest, "tools")),
        command=_command(bundle, manifest) if has_manifest else "",
    )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in files(folder))


def _parts(
    bundle: Bundle, manifest: Fields, parity: Mapping[str, Mapping[str, float]],
    floors: Mapping[str, Floor],
) -> Iterator[Part]:
    said, own = manifest.fields("components", default={}), own_bits(manifest)
    for name, models in bundle.models.items():
        entry = said.fields(name, default={})
        nbits = entry.integer("nbits", low=1, high=16, default=0) or None
        activations = entry.integer("activations", low=1, high=16, default=0) or None
        floor = floors.get(name.partition("/")[0])
        yield Part(
            name=name, models=tuple(path.name for path in models), nbits=nbits,
            has_own_bits=name in own, activations=activations,
            size_bytes=sum(map(_size, models)),
            outputs=tuple(
                Output(name=output, psnr_db=worst if math.isfinite(worst) else None,
                       is_finite=not math.isnan(worst),
                       floor_db=floor.at(nbits, activations) if floor else None)
                for output, worst in parity.get(name, {}).items()))


def _made_from(manifest: Fields, name: str) -> Iterator[tuple[str, str]]:
    """Yields the files, or the tools, that the steps of a bundle name, each with its digest or
    version."""
    for entry in manifest.listed("made_from", dict, default=[]):
        found = Fields(entry, f"{manifest.where}: made_from", BundleError).fields(name, default={})
        for key in sorted(found.values):
            yield key, found.text(key)


def _command(bundle: Bundle, manifest: Fields) -> str:
    """Returns the command that builds a bundle like this one, by what its manifest says."""
    components = manifest.fields("components", default={})
    budgets = dict(_budgets(manifest))
    quantized = {name: bits for name in components.values if (
        bits := components.fields(name).integer("activations", low=1, high=16, default=0))}
    nbits = max((components.fields(name).integer("nbits", low=1, high=16, default=0)
                 for name in components.values if name not in {*budgets, *quantized}), default=0)
    unet = bundle.models.get("unet", ())
    words: dict[str, object] = {
        "model": bundle.name, "size": f"{bundle.width_px}x{bundle.height_px}",
        "attention": bundle.attention, "chunk": len(unet) or 1,
        "target": manifest.text("target", default="iOS16"),
    }
    if nbits or not budgets:  # quant=none would leave a budget without weights
        words["quant"] = nbits or "none"
    if quantized:
        words["activations"] = max(quantized.values())
    for budget in budgets.values():
        words |= _words_of(budget, bundle)
    return shlex.join(["sdbuild", "build", *(f"{k}={v}" for k, v in words.items())])


def _budgets(manifest: Fields) -> Iterator[tuple[str, Fields]]:
    """Yields the components whose weights have bits of their own, each with what these were
    allotted by."""
    for entry in manifest.listed("made_from", dict, default=[]):
        found = Fields(entry, f"{manifest.where}: made_from", BundleError)
        stage, _, component = found.text("step", default="").partition(":")
        if stage == "allocate":
            yield component, found.fields("params", default={}).fields("budget", default={})


def _words_of(budget: Fields, bundle: Bundle) -> dict[str, object]:
    """Returns the variables of a recipe that give this budget: bits on average, a size, a quality,
    or the bit recipe in the bundle's manifest."""
    if "average_bits" in budget.values:
        return {"quant": budget.number("average_bits")}
    if "size_bytes" in budget.values:
        return {"size_mb": budget.number("size_bytes") / 1e6}
    if "quality_db" in budget.values:
        return {"quality": f"{budget.number('quality_db')}dB"}
    return {"bits": bundle.folder / MANIFEST}
