"""Checks whether this machine can build and run, with hints where it cannot.

Nothing is imported to find out: versions come from the metadata of installed packages, ranges from
sdbuild's own metadata (`pyproject.toml`), tested versions from `constraints.txt` and
`constraints-oldest.txt`.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from sdbuild.base.apple import compiler_version
from sdbuild.base.machine import machine_bytes, processors, usable_bytes
from sdbuild.base.units import size
from sdbuild.recipe.project import IMPORT_ROOT

OK = "ok"
NOTE = "note"
"""Something is slower, smaller or done in another way than elsewhere."""
BAD = "bad"
"""Nothing can be built before it is mended."""

_CONSTRAINTS = IMPORT_ROOT / "constraints.txt"
_OLDEST = IMPORT_ROOT / "constraints-oldest.txt"

_NETWORKS = "networks"
"""The extra that the usual install has, too; known architectures are built without it."""

_ENOUGH_MEMORY = 2_000_000_000
"""The U-Net of Stable Diffusion 2.1 takes 0.8 GB at most; mapped libraries and files the rest."""
_LEAST_DISK = 200_000_000
"""Three times what the store of the built-in model takes, in bytes."""
_ENOUGH_DISK = 10_000_000_000
"""For the 1.3 billion parameters of Stable Diffusion 2.1, in bytes: checkpoint in fp32 (5.2 GB),
packages in fp16 (2.6 GB), palettes and chunks in 6 bits (1 GB each)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing about this machine; `hint` says what helps."""

    name: str
    state: str
    found: str
    expected: str = ""
    hint: str = ""


def examine(cache: Path) -> tuple[Finding, ...]:
    """Returns all that matters of this machine, for a store at `cache`."""
    return (*_versions(), _memory(), _disk(cache), _cores(), _compiler(), _core_ml())


def can_build(found: Sequence[Finding]) -> bool:
    """Whether nothing is in the way of a build."""
    return all(finding.state != BAD for finding in found)


def format_findings(found: Sequence[Finding]) -> str:
    """Findings as people read them: a line each, what helps, and what it comes to."""
    lines = []
    for finding in found:
        expected = f"  ({finding.expected})" if finding.expected else ""
        lines.append(f"{finding.state:<6}{finding.name:<18}{finding.found}{expected}")
        lines += [f"      hint: {finding.hint}"] if finding.hint else []
    able = "can build" if can_build(found) else "cannot build yet"
    host = f"{platform.system()} {platform.machine()}"
    return "\n".join([*lines, f"\nThis machine ({host}) {able}."])


def _versions() -> Iterator[Finding]:
    try:
        own = metadata.metadata("sdbuild")
    except metadata.PackageNotFoundError:
        yield Finding(name="sdbuild", state=BAD, found="not installed",
                      hint="scripts/setup installs it with all that it needs")
        return
    yield _python(str(own["Requires-Python"]))
    newest, oldest = _pins(_CONSTRAINTS), _pins(_OLDEST)
    for requirement in map(Requirement, own.get_all("Requires-Dist") or ()):
        extra = next((extra for extra in ("", _NETWORKS) if requirement.marker is None
                      or requirement.marker.evaluate({"extra": extra})), None)
        if extra is not None:
            name = canonicalize_name(requirement.name)
            pins = (oldest.get(name), newest.get(name))
            yield _package(requirement.name, str(requirement.specifier),
                           " and ".join(dict.fromkeys(filter(None, pins))), extra)


def _python(bounds: str) -> Finding:
    found = platform.python_version()
    is_fit = is_within(found, bounds)
    return Finding(
        name="Python", state=OK if is_fit else BAD, found=found, expected=f"in {bounds}",
        hint="" if is_fit else "make a new .venv with a Python in that range: scripts/setup",
    )


def _package(name: str, bounds: str, tested: str, extra: str) -> Finding:
    expected = f"in {bounds or 'any version'}" + (f", tested {tested}" if tested else "")
    fix = f"pip install '{name}{bounds}'" + (" -c constraints.txt" if tested else "")
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        if extra:
            fix = f"for images, and architectures that do not ship: pip install 'sdbuild[{extra}]'"
        return Finding(name=name, state=NOTE if extra else BAD, found="missing",
                       expected=expected, hint=fix)
    if not is_within(found, bounds):
        return Finding(name=name, state=BAD, found=found, expected=expected, hint=fix)
    return Finding(name=name, state=OK, found=found, expected=expected)


def _pins(constraints: Path) -> dict[str, str]:
    """Versions that CI builds with, by plain name; none where the file is not shipped."""
    try:
        lines = constraints.read_text("utf-8").splitlines()
    except OSError:
        return {}
    pins = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {canonicalize_name(name.strip()): version.strip() for name, version in pins}


def is_within(version: str, bounds: str) -> bool:
    """Whether a version lies in bounds such as `>=2.7,<2.15`; one that is no version does not."""
    try:
        return SpecifierSet(bounds).contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False


def _memory() -> Finding:
    total = machine_bytes()
    is_enough = total >= _ENOUGH_MEMORY
    return Finding(
        name="memory", state=OK if is_enough else NOTE,
        found=f"{size(total)}, of which steps use {size(usable_bytes())}",
        expected=f"{size(_ENOUGH_MEMORY)} for the first build of a Stable Diffusion",
        hint="ram=SIZE sets how much, such as ram=6G" if is_enough
        else "small models only; close other programs",
    )


def _disk(cache: Path) -> Finding:
    place = next(p for p in (cache.absolute(), *cache.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    expected = f"{size(_ENOUGH_DISK)} for a Stable Diffusion with everything before its bundle"
    if not os.access(place, os.W_OK):
        return Finding(name="disk", state=BAD, found=f"{place} cannot be written to",
                       expected=expected,
                       hint="choose another location: sdbuild build cache=FOLDER")
    state = BAD if free < _LEAST_DISK else OK if free >= _ENOUGH_DISK else NOTE
    hint = "" if state == OK else "free some space, or put the store elsewhere: cache=FOLDER"
    return Finding(name="disk", state=state, found=f"{size(free)} free at {place}",
                   expected=expected, hint=hint)


def _cores() -> Finding:
    count = processors()
    return Finding(name="cores", state=OK, found=str(count),
                   hint="" if count < 2 else f"doit -n {min(count, 4)} uses several")


def _compiler() -> Finding:
    """Reports which compiler writes `.mlmodelc`: Apple's compiler where Xcode is, ours
    everywhere."""
    version = compiler_version()
    if version:
        return Finding(name="compiler", state=OK, found=f"Apple's coremlcompiler {version}")
    is_mac = sys.platform == "darwin"
    return Finding(
        name="compiler", state=NOTE if is_mac else OK, found="sdbuild's own (compiler=portable)",
        hint="for Apple's own, install Xcode and run xcode-select -s" if is_mac else "",
    )


def _core_ml() -> Finding:
    if sys.platform == "darwin":
        return Finding(name="Core ML", state=OK, found=f"macOS {platform.mac_ver()[0]}")
    return Finding(
        name="Core ML", state=OK, found="none; images are generated by the portable executor",
        expected="a Mac only runs them faster",
    )
