"""The contract with hosts: what apple/ml-stable-diffusion's Swift package, and the apps around
it, expect of a bundle; checked on a folder, on any machine.

The rules are in `sdbuild/bundle/rules/`: of the Swift package at e12202c as it ran over fakes of
the models, of MochiDiffusion at e686551 as read. `docs/contract.md` lists them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from sdbuild.base.errors import BundleError, ContractBroken
from sdbuild.bundle.bundle_reader import FAMILY_NAMES, Opened, open_bundle
from sdbuild.bundle.rules.apps import APP_RULES
from sdbuild.bundle.rules.controlnets import CONTROLNETS
from sdbuild.bundle.rules.files import FILES
from sdbuild.bundle.rules.rule import ERROR, Rule, Violation
from sdbuild.bundle.rules.settings import SETTINGS
from sdbuild.bundle.rules.text_encoders import TEXT_ENCODERS
from sdbuild.bundle.rules.together import TOGETHER
from sdbuild.bundle.rules.tokenizer import TOKENIZER
from sdbuild.bundle.rules.transformers import TRANSFORMERS
from sdbuild.bundle.rules.unets import UNET_RULES
from sdbuild.bundle.rules.vaes import PICTURES

_COLUMNS = 80
BAR = "\\|"
"""A bar within a cell of a table in Markdown."""

RULES = (
    *FILES, *TEXT_ENCODERS, *UNET_RULES, *TRANSFORMERS, *PICTURES, *CONTROLNETS, *TOGETHER,
    *TOKENIZER, *APP_RULES, *SETTINGS,
)


def violations(folder: Path) -> tuple[Violation, ...]:
    """Returns every rule that the bundle in a folder breaks, errors first.

    Raises:
        BundleError: there is no such folder.
    """
    if not folder.is_dir():
        raise BundleError(f"{folder}: there is no such folder, expected that of a bundle")
    bundle = open_bundle(folder)
    found = [violation for rule in RULES for violation in rule.violations(bundle)]
    return tuple(sorted(found, key=lambda violation: violation.level != ERROR))


def require(folder: Path) -> tuple[Violation, ...]:
    """Returns the warnings of the bundle in a folder, if it has no errors.

    Raises:
        ContractBroken: it has errors; names each, its host, and what that host would do.
    """
    found = violations(folder)
    _refuse(found, "this bundle")
    return found


def require_planned(bundle: Opened) -> None:
    """Makes sure that a bundle which is still to be built keeps the rules that its recipe alone can
    break.

    Raises:
        ContractBroken: it does not; names each rule, its host, and what that host would do.
    """
    _refuse([violation for rule in RULES if rule.by_recipe
             for violation in rule.violations(bundle)], "the bundle of this recipe")


def _refuse(found: Iterable[Violation], what: str) -> None:
    errors = [violation for violation in found if violation.level == ERROR]
    if errors:
        raise ContractBroken(
            f"hosts cannot use {what}:\n{format_violations(errors)}",
            hint="docs/contract.md lists the rules; single components can be built by their "
                 "steps: sdbuild build compile:unet",
            violations=[asdict(violation) for violation in errors],
        )


def format_violations(found: Iterable[Violation]) -> str:
    """Violations as people read them: where, and in lines of 80 columns why it matters."""
    lines = [line for violation in found for line in str(violation).splitlines()]
    return "\n".join(textwrap.fill(line, _COLUMNS, subsequent_indent="    ",
                                   break_long_words=False, break_on_hyphens=False)
                     if line.startswith("    ") else line for line in lines)


def table() -> str:
    """Returns the rules as a table in Markdown, for `docs/contract.md`."""
    cells = (
        (rule.level, _families(rule), rule.what, f"{rule.host} {rule.otherwise}") for rule in RULES
    )
    rows = (f"| {' | '.join(text.replace('|', BAR) for text in row)} |" for row in cells)
    return "\n".join(("| | of | rule | if it is broken |", "| --- | --- | --- | --- |", *rows))


def _families(rule: Rule) -> str:
    return "all" if rule.families == FAMILY_NAMES else ", ".join(rule.families)
