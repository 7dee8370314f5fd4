"""Links: which of them lead to files that a checkpoint may be read from.

A folder from somebody else may hold a link to a file that is nobody's business, and a file that is
read goes into a bundle. So links are followed inside the folder, into the blobs of the Hugging Face
cache, and where the user named the link itself on the command line.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from sdbuild.base.errors import SourceError
from sdbuild.base.paths import is_file

_OWN = Path(os.path.realpath(Path(__file__).parent / "clip"))
"""CLIP's vocabulary, which recipes of ours link to."""

_BLOBS, _SNAPSHOTS = "blobs", "snapshots"
_REPOSITORY = "models--"


def absolute(path: Path) -> Path:
    """Returns the path without links, `.` and `..` before its last name, which a file keeps.

    The Hugging Face cache links `x.safetensors` to a blob that is named by its digest alone.
    """
    real = Path(os.path.realpath(path))
    is_named = path.name not in ("", "..") and not _is_folder(real)
    return Path(os.path.realpath(path.parent)) / path.name if is_named else real


def inside(folder: Path, name: str) -> Path:
    """Returns the file that a folder of a checkpoint has by that name.

    Raises:
        SourceError: a link leads out of the folder, or to nothing; names it and its target.
    """
    path = folder / name
    root, real = (Path(os.path.realpath(p)) for p in (folder, path))
    if not is_file(real):
        raise SourceError(f"{path} is a link to {real}, where there is no file",
                          hint="fetch or copy the checkpoint again", file=name)
    if real.is_relative_to(root) or real.parent in (_OWN, *_blobs(root, real)):
        return path
    raise SourceError(
        f"{path} is a link to {real}, which is outside of {folder}",
        hint="copy the file into the folder if it belongs to the checkpoint: links out of a folder "
             "are followed into the Hugging Face cache only",
        file=name,
    )


def _blobs(root: Path, real: Path) -> list[Path]:
    """Returns the folders of blobs that links of a checkpoint at `root` may lead to.

    Source:
        huggingface_hub, "Understand caching": `models--OWNER--NAME/{snapshots/COMMIT,blobs}`.
    """
    own = [parent.parent / _BLOBS for parent in root.parents if parent.name == _SNAPSHOTS]
    cached = real.parent
    is_cached = cached.name == _BLOBS and cached.parent.name.startswith(_REPOSITORY) and (
        cached.parent.parent == _cache())
    return [*own, cached] if is_cached else own


def _is_folder(path: Path) -> bool:
    """Whether there is such a folder; a name that is too long is none's."""
    with contextlib.suppress(OSError, ValueError):
        return path.is_dir()
    return False


def _cache() -> Path:
    """Returns the Hub's cache, as huggingface_hub finds it."""
    known = os.environ
    home = Path(known.get("HF_HOME") or Path(known.get("XDG_CACHE_HOME") or "~/.cache")
                / "huggingface")
    found = known.get("HF_HUB_CACHE") or known.get("HUGGINGFACE_HUB_CACHE") or home / "hub"
    return Path(os.path.realpath(Path(os.path.expandvars(found)).expanduser()))
