"""The kinds of places that files can lie at: how each is reached, and written to, a file whole or
not at all.

The only module that knows fsspec. SFTP (`sftp.py`) and WebDAV (`webdav.py`) are reached without it:
its driver of the one takes any host for the right one, that of the other replaces no file.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from sdbuild.store.remote.sftp import SFTP
from sdbuild.store.remote.webdav import WebDAV

_PART_BYTES = 16 << 20
"""Of an upload or download in parts. Four of them are held in memory together."""
_MOST_PARTS = 9_999
"""S3 takes 10,000."""
NETWORK_BYTES_S = 125e6
"""The bytes a second that a server probably takes: those of a gigabit network."""
_DISK_BYTES_S = 1e9


class Backend(Protocol):
    """Files by their names below a URL. Its methods raise what the libraries below them raise."""

    def __init__(self, url: str, timeout_s: float) -> None: ...

    def get(self, name: str, target: Path, grown: Callable[[], None]) -> None:
        """Copies a file to `target`, and calls `grown` each time that there is more of it.

        Raises:
            FileNotFoundError: it is not there.
        """

    def size(self, name: str) -> int:
        """Returns the bytes of a file.

        Raises:
            FileNotFoundError: it is not there.
        """

    def put(self, source: Path, name: str) -> None:
        """Copies a file there, whole or not at all, in place of what had its name."""

    def names(self, folder: str) -> list[str]:
        """Returns the files and folders in a folder, or below the URL if it is empty; none if it is
        not there."""


class ObjectStore:
    """A place that has a file whole or not at all, and needs no folder for it."""

    def __init__(self, url: str, timeout_s: float) -> None:
        import fsspec

        self.driver, self._root = fsspec.url_to_fs(
            url, use_listings_cache=False, skip_instance_cache=True, **self.options(timeout_s)
        )

    def options(self, timeout_s: float) -> dict[str, Any]:
        """Returns what the driver is opened with."""
        return {}

    def path(self, name: str) -> str:
        """Returns what the driver calls a file."""
        base, query, token = self._root.partition("?")
        return f"{base.rstrip('/')}/{name}{query}{token}"

    def get(self, name: str, target: Path, grown: Callable[[], None]) -> None:
        """As `Backend` says."""
        self.driver.get_file(self.path(name), str(target), callback=_callback(grown))

    def size(self, name: str) -> int:
        """As `Backend` says."""
        return self.driver.info(self.path(name))["size"]

    def put(self, source: Path, name: str) -> None:
        """As `Backend` says."""
        self.driver.put_file(str(source), self.path(name))

    def names(self, folder: str) -> list[str]:
        """As `Backend` says."""
        own = self.path(folder).rstrip("/")
        try:
            found = [path.rstrip("/") for path in self.driver.ls(own, detail=False)]
        except FileNotFoundError:
            return []
        # an object store may have an object for the folder itself
        return [path.rpartition("/")[2] for path in found if len(path) > len(own)]


class HTTP(ObjectStore):
    """A server that takes files by `PUT`."""

    _LOCAL = ("locks/store", "stamps.json", "hub.json", "gone.json")
    """Files of a local store that a server may have, if it was copied there."""

    def put(self, source: Path, name: str) -> None:
        """As `Backend` says."""
        self.driver.put_file(str(source), self.path(name), method="put")

    def names(self, folder: str) -> list[str]:
        """Returns what a local store would have, of that what is there: HTTP lists nothing."""
        return [] if folder else [name for name in self._LOCAL if self._is_there(name)]

    def _is_there(self, name: str) -> bool:
        try:
            self.size(name)
        except FileNotFoundError:
            return False
        return True


class S3(ObjectStore):
    """A bucket of S3, or of another server that speaks it."""

    def __init__(self, url: str, timeout_s: float) -> None:
        super().__init__(url, timeout_s)
        self.driver.retries = 1  # once here, twice in botocore

    def options(self, timeout_s: float) -> dict[str, Any]:
        """Parts, and patience that ends before ours."""
        return {
            "default_block_size": _PART_BYTES, "max_concurrency": 4,
            "config_kwargs": {
                "connect_timeout": min(10, timeout_s / 2),
                "read_timeout": timeout_s / 2,
                "retries": {"mode": "standard", "total_max_attempts": 2},
            },
        }

    def put(self, source: Path, name: str) -> None:
        """As `Backend` says."""
        part = max(_PART_BYTES, source.stat().st_size // _MOST_PARTS)
        self.driver.put_file(str(source), self.path(name), chunksize=part)


class GS(ObjectStore):
    """A bucket of Google Cloud Storage."""

    def __init__(self, url: str, timeout_s: float) -> None:
        # Else gcsfs asks another service, by gRPC, for the type of the bucket at every call, and
        # complains of not knowing it. Zonal buckets need it.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        super().__init__(url, timeout_s)


class Folder(ObjectStore):
    """A folder, where a file is written under another name and renamed."""

    def put(self, source: Path, name: str) -> None:
        """As `Backend` says."""
        path = self.path(name)
        folder = str(PurePosixPath(path).parent)
        new = f"{folder}/.new-{secrets.token_hex(8)}"
        self.driver.makedirs(folder, exist_ok=True)
        try:
            self.driver.put_file(str(source), new)
            self.driver.mv(new, path)
        except BaseException:
            with contextlib.suppress(Exception):
                self.driver.rm_file(new)
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The backend of a URL scheme.

    `package`: its requirement; `takes_user`: a URL may hold a user, which the driver would
    otherwise send as a bucket's name; `bytes_s`: the bytes a second that it probably takes.
    """

    backend: type[Backend]
    package: str = ""
    takes_user: bool = True
    bytes_s: float = NETWORK_BYTES_S


_S3 = Kind(backend=S3, package="s3fs", takes_user=False)
_GS = Kind(backend=GS, package="gcsfs", takes_user=False)
_AZ = Kind(backend=ObjectStore, package="adlfs", takes_user=False)
_HTTP = Kind(backend=HTTP, package="aiohttp")
_WEBDAV = Kind(backend=WebDAV, package="httpx")
_SFTP = Kind(backend=SFTP, package="paramiko")

KINDS: Mapping[str, Kind] = {
    "s3": _S3, "gs": _GS, "gcs": _GS, "az": _AZ, "abfs": _AZ, "http": _HTTP, "https": _HTTP,
    "webdav": _WEBDAV, "webdavs": _WEBDAV, "sftp": _SFTP, "ssh": _SFTP,
    "file": Kind(backend=Folder, bytes_s=_DISK_BYTES_S),
    "memory": Kind(backend=Folder, bytes_s=_DISK_BYTES_S),
}
"""By the scheme of a URL."""


def _callback(grown: Callable[[], None]) -> Any:
    """Returns a callback of fsspec that passes on that more has come."""
    from fsspec.callbacks import Callback

    class Grown(Callback):
        def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
            grown()

    return Grown()
