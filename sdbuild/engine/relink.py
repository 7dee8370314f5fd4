"""Another build's component in a finished bundle: everything else stays as it is, byte for byte."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sdbuild.base.digest import Key, digest, digest_file
from sdbuild.base.errors import BundleError, CorruptArtifact
from sdbuild.base.parsing import Fields
from sdbuild.base.suggestions import did_you_mean
from sdbuild.bundle.install import check_replaceable, install
from sdbuild.bundle.layout import link_models
from sdbuild.bundle.manifest import load_bundle, read_manifest, write_manifest
from sdbuild.engine.build import Builder, State
from sdbuild.engine.plan import Plan
from sdbuild.store import Record, Store
from sdbuild.store.disk import link_out
from sdbuild.store.roots import MANIFEST, roots


def relink(folder: Path, component: str, builder: Builder) -> Record:
    """Puts the component that the builder's plan made into the bundle at `folder`.

    The new bundle is laid out beside the old one, checked by the contract, and then takes its
    place; whatever fails before that leaves the old one as it was.

    Raises:
        BundleError: no bundle, no such component in it or in the plan, or it was not made yet.
        CorruptArtifact: a file of the bundle is not what its manifest says.
        ContractBroken: a host could not use the bundle with this component.
    """
    load_bundle(folder)
    check_replaceable(folder)
    fields = read_manifest(folder)
    for entry in fields.listed("made_from", dict):
        Fields(entry, f"{fields.where}: made_from", BundleError).text("step")
    manifest = fields.values
    _check_known(component, manifest["components"], f"{folder} has no component")
    _check_known(component, builder.plan.steps["bundle"].inputs, "the recipe makes no component")
    step = builder.plan.steps["bundle"].inputs[component].step
    states = builder.states([step])
    if states[step].record is None:
        raise BundleError(f"{step} is not made yet, with these settings",
                          hint=f"make it first: doit {step}, with the same name=value settings")
    found = _ingredients(folder, manifest, component, states[step], builder)
    key = Key(digest("relink", found))
    store = builder.store
    with store.in_use("relink"), store.locked(key, "relink"), store.workspace(key) as work:
        compiled = builder.deliver(step, lambda record: store.checkout(record, work / "compiled"))
        out = work / "out"
        link_models(compiled, out, _entry(component, builder.plan)["models"])
        _keep(folder, out, manifest, component)
        made_from = [builder.provenance_of(state) for state in states.values()]
        changed = _with_hosts(out, _changed(manifest, component, builder.plan, made_from))
        write_manifest(out, changed)
        made = store.put(out, Record(
            key=key, step=f"relink:{component}", ingredients=found, tree=(), seconds=0.0,
            peak_bytes=0, made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            host=platform.node(),
            facts={"warnings": _warnings(out), "hosts": _summary(changed),
                   "variant": f"{folder.name} (relinked)"},
        ))
        install(made, store, folder)
    return made


def _check_known(component: str, known: Mapping[str, object], message: str) -> None:
    if component not in known:
        raise BundleError(f"{message} {component!r}{did_you_mean(component, known)}",
                          hint=f"it has {', '.join(known)}")


def _ingredients(
    folder: Path, manifest: Mapping[str, Any], component: str, state: State, builder: Builder
) -> dict[str, Any]:
    """Returns what the bundle will be made of; as of a step, so that its history is known like
    theirs."""
    record = _record_at(folder, builder.store)
    before = dict(record.ingredients["inputs"]) if record else {}
    assert state.record is not None
    return {
        "kind": "relink", "version": 1, "source": {}, "tools": {},
        "params": {
            **{name: manifest[name] for name in (
                "name", "family", "width_px", "height_px", "attention", "target")},
            "components": manifest["components"] | {
                component: _entry(component, builder.plan)},
        },
        "inputs": before | {component: state.record.digest(),
                            "bundle": digest_file(folder / MANIFEST)},
    }


def _record_at(folder: Path, store: Store) -> Record | None:
    """Returns the record of the bundle at `folder`, if it came from this store."""
    for root in roots(store):
        if root.folder == folder:
            return root.record
    return None


def _entry(component: str, plan: Plan) -> dict[str, Any]:
    """Returns what the manifest says of the component, if the plan made it."""
    return dict(plan.steps["bundle"].params["components"][component])


def _keep(folder: Path, out: Path, manifest: Mapping[str, Any], component: str) -> None:
    """Lays out everything of the old bundle but the component, each file read and found whole."""
    models = tuple(f"{name}/" for name in manifest["components"][component]["models"])
    for name, (_, wanted) in manifest["files"].items():
        if name.startswith(models):
            continue
        if digest_file(folder / name) != wanted:
            raise CorruptArtifact(f"{folder / name} is damaged", hint="build the bundle again")
        link_out(folder / name, out / name)


def _changed(
    manifest: Mapping[str, Any], component: str, plan: Plan, made_from: list[dict[str, Any]]
) -> dict[str, Any]:
    """Returns the manifest of the bundle with the component of the plan."""
    recipe = plan.recipe
    before = manifest["made_from"]
    others = [e for e in before if e["step"].partition(":")[2] != component]
    place = next((i for i, entry in enumerate(before) if entry not in others), len(others))
    has_layouts = recipe.component(component).takes("attention")
    return {
        **manifest,
        "attention": recipe.network.attention if has_layouts else manifest["attention"],
        "target": max(manifest["target"], recipe.packaging.target),
        "components": manifest["components"] | {component: _entry(component, plan)},
        "made_from": [*others[:place], *made_from, *others[place:]],
    }


def _with_hosts(out: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    from sdbuild.bundle.compatibility import with_hosts

    return with_hosts(out, manifest)


def _summary(manifest: Mapping[str, Any]) -> list[str]:
    from sdbuild.bundle.compatibility import summary_of

    return summary_of(manifest)


def _warnings(out: Path) -> list[str]:
    from sdbuild.bundle.contract import require

    return [str(violation) for violation in require(out)]
