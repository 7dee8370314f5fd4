"""Links a component's compiled models into a bundle, under the names in its manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdbuild.base.filenames import contents
from sdbuild.mil.files.suffixes import COMPILED
from sdbuild.store.disk import link_out
from sdbuild.store.scan import files


def link_models(source: Path, target: Path, names: Sequence[str]) -> None:
    """Links a component's compiled models, the chunks in order, under their names in the bundle."""
    for model, name in zip(contents(source, COMPILED), names, strict=True):
        link_folder(model, target / name)


def link_folder(source: Path, target: Path) -> None:
    """Links the files of a folder into another."""
    for path in files(source):
        link_out(path, target / path.relative_to(source))
