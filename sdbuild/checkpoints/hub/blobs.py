"""Large files of the Hub, fetched so that what was cut off goes on where it was.

huggingface_hub fetches a file under a name of its own for each process, and takes it away when that
fails: it cannot go on in another process. So a file in LFS is fetched here, over plain HTTP, into
`blobs/<digest>.incomplete` of its cache, as it did itself before. A whole one is renamed to
`blobs/<digest>`, where huggingface_hub finds it and does the rest.

Source:
    huggingface_hub, "Understand caching", for the layout; `_download_to_tmp_and_move` and pull
    request 4228 for why it fetches as it does. Files whose locks do not hold (on some network
    disks) may be mixed up here; its readers verify it against its digest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.file_download import HfFileMetadata, http_get
from huggingface_hub.utils import WeakFileLock, build_hf_headers


def folder(repo: str) -> Path:
    """Returns the folder of a repository in the Hub's cache."""
    return Path(constants.HF_HUB_CACHE) / _name(repo)


def complete(repo: str, commit: str, name: str, sha256: str, *, library_name: str) -> None:
    """Makes sure that a file in LFS is whole in the Hub's cache; fetches what it lacks.

    Not if the server calls it otherwise than by its digest: then huggingface_hub may fetch it.

    Raises whatever huggingface_hub, its HTTP library and the file system raise.
    """
    if isinstance(huggingface_hub.try_to_load_from_cache(repo, name, revision=commit), str):
        return
    url = huggingface_hub.hf_hub_url(repo, name, revision=commit)
    found = huggingface_hub.get_hf_file_metadata(
        url, library_name=library_name, retry_on_errors=True
    )
    if found.etag != sha256:
        return
    is_elsewhere = urlsplit(found.location).netloc != urlsplit(url).netloc
    headers = build_hf_headers(  # the token is for the Hub alone
        token=False if is_elsewhere else None, library_name=library_name
    )
    blob = folder(repo) / "blobs" / sha256
    with _locked(repo, blob):
        if not blob.exists():  # another process may just have fetched it
            partial = blob.with_name(f"{sha256}.incomplete")
            with partial.open("ab") as file:
                _fetch_rest(file, found, displayed_filename=name, headers=headers)
            partial.replace(blob)


def _fetch_rest(file: BinaryIO, found: HfFileMetadata, **how: Any) -> None:
    """Appends what a file lacks; what it has stays whatever happens, unless it cannot be right."""
    if found.size is not None and file.tell() > found.size:
        _empty(file)
    try:
        http_get(
            found.location, file, resume_size=file.tell(), expected_size=found.size, **how
        )
    except OSError as error:
        if type(error) is OSError and error.errno is None:  # of another size than was promised
            _empty(file)
        raise


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()


@contextlib.contextmanager
def _locked(repo: str, blob: Path) -> Iterator[None]:
    """Holds the lock under which huggingface_hub, too, fetches a file."""
    lock = Path(constants.HF_HUB_CACHE) / ".locks" / _name(repo) / f"{blob.name}.lock"
    for path in (lock, blob):
        path.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        yield


def _name(repo: str) -> str:
    return f"models--{repo.replace('/', '--')}"
