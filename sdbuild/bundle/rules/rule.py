"""The nouns of the contract: a rule, what it finds, and what is said of that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from sdbuild.bundle.bundle_reader import FAMILY_NAMES, REFINER, SD, SD3, SDXL, Opened

ALL = FAMILY_NAMES
XL = (SDXL, REFINER)
UNETS = (SD, SDXL, REFINER)
"""The families whose denoiser is a U-Net; that of Stable Diffusion 3 is a transformer."""
TWO_ENCODERS = (SDXL, REFINER, SD3)

ERROR = "error"
"""A host crashes, cannot use the bundle, or generates wrong images."""
WARNING = "warning"
"""A host does less than it could, or needs a setting that it does not find in the bundle."""

SWIFT = "Apple's Swift package"
PYTHON = "Apple's Python pipeline"
APPS = "MochiDiffusion"
NEURAL_ENGINE = "The Neural Engine"


@dataclass(frozen=True, slots=True)
class Finding:
    """A place where a rule does not hold: what is there, and what was expected."""

    where: str
    found: str
    expected: str


Check = Callable[[Opened], Iterator[Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A rule that a bundle breaks, where, and what that does to which host."""

    rule: str
    level: str
    what: str
    where: str
    found: str
    expected: str
    host: str
    otherwise: str

    def __str__(self) -> str:
        return (
            f"{self.level}: {self.where}: found {self.found}, expected {self.expected}\n"
            f"    {self.what} {self.host} {self.otherwise}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Something that hosts expect of a bundle: `what` they do, and what they do `otherwise`.

    It holds for bundles of `families`. If it is broken by what the checkpoint is (`by_checkpoint`),
    and the manifest says that the bundle was built so on purpose, it is a warning: no build of that
    checkpoint could keep it, and there are runtimes that need none of it. One that a recipe alone
    can break (`by_recipe`), by its components, batch or settings, is also checked before anything
    is built.
    """

    name: str
    what: str
    level: str
    host: str
    otherwise: str
    check: Check
    families: tuple[str, ...]
    by_checkpoint: bool
    by_recipe: bool

    def violations(self, bundle: Opened) -> Iterator[Violation]:
        """Yields the violations of it by a bundle."""
        if bundle.family not in self.families:
            return
        is_known = self.by_checkpoint and isinstance(bundle.manifest.get("components"), dict)
        for finding in self.check(bundle):
            yield Violation(
                rule=self.name, level=WARNING if is_known else self.level, what=self.what,
                where=finding.where, found=finding.found, expected=finding.expected,
                host=self.host, otherwise=self.otherwise,
            )


def rule(
    level: str, host: str, otherwise: str, *, families: tuple[str, ...] = ALL,
    by_checkpoint: bool = False, by_recipe: bool = False,
) -> Callable[[Check], Rule]:
    """Makes a rule of a check, with the check's name and docstring."""
    def made(check: Check) -> Rule:
        return Rule(
            name=check.__name__, what=" ".join((check.__doc__ or "").split()), level=level,
            host=host, otherwise=otherwise, check=check, families=families,
            by_checkpoint=by_checkpoint, by_recipe=by_recipe,
        )
    return made


def names(found: Iterable[str]) -> str:
    """Returns some names for a message: `a, b`, or `none`."""
    return ", ".join(sorted(found)) or "none"
