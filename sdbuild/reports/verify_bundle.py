"""Every file of one finished bundle read, whoever made it.

Files that a manifest lists have its digests. What nobody wrote down is held against what models say
of themselves: programs, and the records of weight files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sdbuild.base.digest import digest_file
from sdbuild.base.units import counted, size
from sdbuild.bundle.inside import check_inside
from sdbuild.bundle.manifest import MANIFEST, listed_files, read_manifest
from sdbuild.mil.files.suffixes import COMPILED, PACKAGE
from sdbuild.store.scan import files


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A file or a model of a bundle, by its path in it, and what is wrong with it."""

    path: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedBundle:
    """The result of verifying a bundle: its files, those that have a digest, and the models that
    were read."""

    bundle: str
    files: int
    size_bytes: int
    with_digest: int
    models: int
    damage: tuple[Damage, ...]

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damage


def verify_bundle(folder: Path) -> VerifiedBundle:
    """Reads a bundle in a folder.

    Raises:
        BundleError: its manifest cannot be read, or something leads out of the folder.
    """
    from sdbuild.mil.inspect.verify import verify

    check_inside(folder)
    own = files(folder)
    listed = listed_files(folder, read_manifest(folder)) if (folder / MANIFEST).is_file() else {}
    damage = [*_changed(folder, listed)]
    is_known = {each.path for each in damage}
    models = list(_models(folder))
    for model in models:
        name = model.relative_to(folder).as_posix()
        if not any(path.startswith(f"{name}/") for path in is_known):
            damage += [Damage(path=name, problem=f"{found.where}: {found.problem}")
                       for found in verify(model) if found.is_error]
    return VerifiedBundle(
        bundle=str(folder), files=len(own), size_bytes=sum(path.stat().st_size for path in own),
        with_digest=len(listed), models=len(models), damage=tuple(damage))


def _changed(folder: Path, listed: dict[str, tuple[int, str]]) -> Iterator[Damage]:
    """Yields the files that are not as the manifest says."""
    for name, (length, digest) in listed.items():
        path = folder / name
        if not path.is_file():
            yield Damage(path=name, problem="missing")
        elif (found := path.stat().st_size) != length:
            yield Damage(path=name, problem=f"{found} bytes, expected {length}")
        elif (made := digest_file(path)) != digest:
            yield Damage(path=name, problem=f"digest {made[:8]}, expected {digest[:8]}")


def _models(folder: Path) -> Iterator[Path]:
    """Yields the models in a folder and in those below it."""
    for path in sorted(folder.iterdir()):
        if path.suffix in (COMPILED, PACKAGE):
            yield path
        elif path.is_dir() and not path.is_symlink():
            yield from _models(path)


def format_verified_bundle(found: VerifiedBundle) -> str:
    """Returns the result as text."""
    read = f"{counted(found.files, 'file')}, {size(found.size_bytes)}, " \
           f"{counted(found.models, 'model')} read"
    count = len({each.path for each in found.damage})
    lines = [f"{each.path}: {each.problem}" for each in found.damage]
    lines.append(f"{read}: {f'{count} damaged' if count else 'all intact'}")
    if not found.with_digest:
        lines.append(f"no {MANIFEST} with digests: other weights of the same form would not show")
    return "\n".join(lines)
