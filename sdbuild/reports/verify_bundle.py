"""Verifies a finished bundle from any tool.

Files listed in the manifest are compared with its digests. All models are checked for consistency:
their programs, and the records of their weight files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sdbuild.base.digest import digest_file
from sdbuild.base.units import counted, several, size
from sdbuild.bundle.inside import check_inside
from sdbuild.bundle.manifest import MANIFEST, listed_files, read_manifest
from sdbuild.mil.files.suffixes import COMPILED, PACKAGE
from sdbuild.store.scan import files

_SHOWN = 10
"""Files and models that are listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A damaged file or model, by its path in the bundle, and the problem."""

    path: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedBundle:
    """The result of verifying a bundle: the number of its files, of those with a
    digest, and of its models."""

    bundle: str
    files: int
    size_bytes: int
    with_digest: int
    models: int
    damage: tuple[Damage, ...]

    @property
    def is_whole(self) -> bool:
        """True if no damage was found."""
        return not self.damage


def verify_bundle(folder: Path) -> VerifiedBundle:
    """Returns the damage of a bundle in a folder.

    Raises:
        BundleError: its manifest is invalid, or a link leads out of the folder.
    """
    from sdbuild.mil.inspect.verify import verify

    check_inside(folder)
    own = files(folder)
    listed = listed_files(folder, read_manifest(folder)) if (folder / MANIFEST).is_file() else {}
    damage = [*_changed(folder, listed)]
    changed = {each.path for each in damage}
    models = list(_models(folder))
    for model in models:
        name = model.relative_to(folder).as_posix()
        if not any(path.startswith(f"{name}/") for path in changed):
            damage += [Damage(path=name, problem=f"{found.where}: {found.problem}".replace(
                f"{model}/", "")) for found in verify(model) if found.is_error]
    return VerifiedBundle(
        bundle=str(folder), files=len(own), size_bytes=sum(path.stat().st_size for path in own),
        with_digest=len(listed), models=len(models), damage=tuple(damage))


def _changed(folder: Path, listed: dict[str, tuple[int, str]]) -> Iterator[Damage]:
    """Yields the files whose size or digest differs from the manifest."""
    for name, (length, digest) in listed.items():
        path = folder / name
        if not path.is_file():
            yield Damage(path=name, problem="missing")
        elif (found := path.stat().st_size) != length:
            yield Damage(path=name, problem=f"{found} bytes, expected {length}")
        elif (made := digest_file(path)) != digest:
            yield Damage(path=name, problem=f"digest {made[:8]}, expected {digest[:8]}")


def _models(folder: Path) -> Iterator[Path]:
    """Yields the models in a folder, at any depth."""
    for path in sorted(folder.iterdir()):
        if path.suffix in (COMPILED, PACKAGE):
            yield path
        elif path.is_dir() and not path.is_symlink():
            yield from _models(path)


def format_verified_bundle(found: VerifiedBundle) -> str:
    """Returns the result as text: of each file or model that is damaged, the first fault."""
    read = f"{counted(found.files, 'file')}, {size(found.size_bytes)}, " \
           f"{counted(found.models, 'model')} read"
    faults: dict[str, list[str]] = {}
    for each in found.damage:
        faults.setdefault(each.path, []).append(each.problem)
    count = len(faults)
    lines = [f"{path}: {several(problems, 1)}" for path, problems in faults.items()]
    if count > _SHOWN:
        lines[_SHOWN:] = [f"and {count - _SHOWN} more; `sdbuild verify BUNDLE --json` lists all"]
    lines.append(f"{read}: {f'{count} damaged' if count else 'all intact'}")
    if not found.with_digest:
        lines.append(f"no {MANIFEST} with digests: replaced weights of the same shape are not "
                     "detected")
    return "\n".join(lines)
