"""Checks a finished bundle from any tool: its files, the contract with hosts, and its images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sdbuild.base.errors import CheckFailed
from sdbuild.base.units import counted
from sdbuild.bundle.contract import RULES, format_violations, violations
from sdbuild.bundle.places import as_compiled
from sdbuild.bundle.rules.rule import ERROR, Violation
from sdbuild.reports.check import Judgement, compared
from sdbuild.reports.lineage import Lineage
from sdbuild.reports.page.records import known
from sdbuild.reports.verify_bundle import format_verified_bundle, verify_bundle
from sdbuild.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedBundle:
    """The report on a bundle that passed, and the warnings of the contract."""

    report: str
    warnings: tuple[Violation, ...]


def check_bundle(folder: Path, judge: Callable[[], Judgement]) -> CheckedBundle:
    """Returns the report on the bundle in a folder.

    Args:
        judge: judges its images, once its files are known to be intact.

    Raises:
        BundleError: it is none.
        CheckFailed: it is damaged, breaks a rule, or its images are broken; the report is in the
            message.
    """
    found = verify_bundle(folder)
    files = format_verified_bundle(found)
    if not found.is_whole:
        raise CheckFailed(f"the bundle is damaged\n\n{files}",
                          hint="download it, or build it, again; its models were not loaded")
    with as_compiled(folder) as (compiled, _):
        broken = violations(compiled)
    errors = [violation for violation in broken if violation.level == ERROR]
    judged = judge()
    contract = _contract(errors, len(broken) - len(errors))
    shown = "\n".join([f"files: {files}", *contract, "", judged.table])
    problems = [f"hosts cannot use the bundle: {counted(len(errors), 'rule')} broken"] \
        if errors else []
    problems += [judged.problem] if judged.problem else []
    if problems:
        raise CheckFailed("\n".join([*problems, "", shown]), hint=judged.hint or (
            "docs/contract.md lists the rules; sdbuild contract says which hosts run the bundle"))
    return CheckedBundle(report=shown, warnings=broken)


def _contract(errors: list[Violation], warnings: int) -> list[str]:
    listed = "; sdbuild contract lists them" if warnings else ""
    counts = f"{counted(len(errors), 'error')}, {counted(warnings, 'warning')}{listed}"
    return [f"contract: {len(RULES)} rules, {counts}",
            *([format_violations(errors)] if errors else [])]


def recorded(folder: Path, store: Store) -> Judgement | None:
    """Returns the judgement on a bundle that a store made, as `check` measured it beside its
    original; None if it was not.

    Raises:
        StepError: a record is not what a step writes.
    """
    found = known(folder, store, Lineage(store.records()))
    judged = found.judged(store) if found else None
    return compared("its original, as the store has it", judged.pictures) if judged else None
