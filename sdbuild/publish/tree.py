"""A bundle as the files of a repository: a folder, a zip, ControlNets apart, and the card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbuild.base.digest import sha256_file
from sdbuild.base.parsing import json_file
from sdbuild.bundle.manifest import MANIFEST
from sdbuild.mil.files.suffixes import COMPILED
from sdbuild.publish import names
from sdbuild.publish.archive import check_zip, write_zip
from sdbuild.publish.card import Sum
from sdbuild.publish.names import Variant
from sdbuild.store.scan import files

_NETS = "controlnet/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The files of a variant by their paths in the repository, and what there is to say of them.

    `warnings` are those of the contract, of what an app unpacks.
    """

    variant: Variant
    folder: str
    archive: str
    manifest: Mapping[str, Any]
    files: Mapping[str, Path]
    sums: Mapping[str, Sum]
    warnings: tuple[str, ...]


def tree_of(bundle: Path, repository: str, taken: Mapping[str, str], work: Path) -> Tree:
    """Lays a bundle out as a variant of a repository.

    Args:
        repository: its name, without its owner.
        taken: the bits of the variants that are there, by folder.
        work: the folder for the zips.

    Raises:
        BundleError: what is in the zip cannot be used by hosts.
    """
    manifest = json_file(bundle / MANIFEST, has_infinities=True)
    variant = Variant.of(manifest)
    folder = names.folder_of(variant, taken)
    archive = names.zip_of(repository, folder)
    own = {path.relative_to(bundle).as_posix(): path for path in files(bundle)}
    made = work / Path(archive).name
    write_zip(made, _zipped(own, manifest, made.stem))
    warnings = check_zip(made)
    found = {f"{folder}/{name}": path for name, path in own.items()}
    found[archive] = made
    found |= _nets(own, variant, work)
    return Tree(
        variant=variant, folder=folder, archive=archive, manifest=manifest, files=found,
        sums={path: Sum(sha256_file(file), file.stat().st_size)
              for path, file in found.items()},
        warnings=tuple(warnings))


def _zipped(
    own: Mapping[str, Path], manifest: Mapping[str, Any], stem: str
) -> dict[str, Path | bytes]:
    """Returns the files of a variant's zip: in one folder of its name, without ControlNets, in
    whose folder apps would look for no others."""
    kept: dict[str, Path | bytes] = {
        f"{stem}/{name}": path for name, path in own.items() if not name.startswith(_NETS)}
    if len(kept) < len(own):
        without = {**manifest, "components": {
            name: entry for name, entry in manifest["components"].items()
            if not name.startswith(_NETS)}, "files": {
            name: entry for name, entry in manifest["files"].items()
            if not name.startswith(_NETS)}}
        kept[f"{stem}/{MANIFEST}"] = (
            json.dumps(without, indent=2, ensure_ascii=False) + "\n").encode()
    return kept


def _nets(own: Mapping[str, Path], variant: Variant, work: Path) -> dict[str, Path]:
    """Returns a zip for each ControlNet, as apps list them apart from models."""
    found: dict[str, Path] = {}
    models = {name.split("/")[1] for name in own if name.startswith(_NETS)}
    for model in sorted(models):
        stem = model.removesuffix(COMPILED)
        inner = names.net_of(variant, stem) + COMPILED
        path = work / f"{Path(inner).stem}.zip"
        start = f"{_NETS}{model}/"
        write_zip(path, {f"{inner}/{name.removeprefix(start)}": file
                         for name, file in own.items() if name.startswith(start)})
        found[f"CN/{path.name}"] = path
    return found
