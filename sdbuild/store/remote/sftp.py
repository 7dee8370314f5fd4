"""A folder that is reached by SFTP. Its host must be one of `~/.ssh/known_hosts`, as for `ssh`."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sdbuild.base.errors import RemoteFailed

_READS_AHEAD, _READ_BYTES = 64, 32768
"""Requests that are under way together, and the size of each, as OpenSSH's `sftp` has them."""


class SFTP:
    """Files below a URL of SFTP, each written under another name and renamed."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url, self._timeout_s = urlsplit(url), timeout_s
        self._root = unquote(self._url.path).rstrip("/")
        self._client: Any = None
        self._open: Any = None

    def get(self, name: str, target: Path, grown: Callable[[], None]) -> None:
        """As `Backend` says."""
        with self._files().open(self._path(name), "rb") as file, target.open("wb") as out:
            count = file.stat().st_size
            asked = 0
            while True:
                while asked < min(out.tell() + _READS_AHEAD * _READ_BYTES, count):
                    _ask(file, asked, min(_READ_BYTES, count - asked))
                    asked += _READ_BYTES
                if not (data := file.read(_READ_BYTES)):
                    break
                out.write(data)
                grown()
            if out.tell() != count:
                raise OSError(f"{out.tell()} bytes came, expected {count}")

    def size(self, name: str) -> int:
        """As `Backend` says."""
        return self._files().stat(self._path(name)).st_size

    def put(self, source: Path, name: str) -> None:
        """As `Backend` says."""
        files, path = self._files(), self._path(name)
        folder = path.rpartition("/")[0]
        new = f"{folder}/.new-{secrets.token_hex(8)}"
        _make(files, folder)
        try:
            files.put(str(source), new)
            _replace(files, new, path)
        except BaseException:
            with contextlib.suppress(Exception):
                files.remove(new)
            raise

    def names(self, folder: str) -> list[str]:
        """As `Backend` says."""
        try:
            return self._files().listdir(self._path(folder))
        except FileNotFoundError:
            return []

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _files(self) -> Any:
        """Returns the session, anew if the last one was cut.

        Raises:
            RemoteFailed: the host is not known here, or denies access; asking again is of no
                use, and may have us shut out.
        """
        if self._client is None or not self._client.get_transport().is_active():
            self._client = None
            self._client, self._open = self._connected()
        return self._open

    def _connected(self) -> tuple[Any, Any]:
        import paramiko

        logging.getLogger("paramiko").addHandler(logging.NullHandler())  # else it prints errors
        client = paramiko.SSHClient()
        client.load_system_host_keys()
        url, wait = self._url, self._timeout_s
        try:
            client.connect(
                url.hostname, url.port or paramiko.config.SSH_PORT,
                unquote(url.username) if url.username else None,
                unquote(url.password) if url.password else None,
                timeout=wait, banner_timeout=wait, auth_timeout=wait, channel_timeout=wait,
            )
            return client, client.open_sftp()
        except paramiko.BadHostKeyException:
            client.close()
            raise RemoteFailed(
                f"the key of {url.hostname} is not the one in ~/.ssh/known_hosts") from None
        except paramiko.AuthenticationException as error:
            client.close()
            raise RemoteFailed(f"it denies access: {error}") from None
        except BaseException as error:
            client.close()
            if "known_hosts" in str(error):
                raise RemoteFailed(f"{error}; log in once with ssh") from None
            raise


def _ask(file: Any, start: int, count: int) -> None:
    """Asks for a part of a file before it is read.

    In the thread that reads: paramiko's own `prefetch` asks in another, which takes the file as
    read where an answer comes before the next request is sent, so that the rest came twice.
    """
    file._prefetching, file._prefetch_done = True, False
    file._prefetch_thread([(start, count)], None)


def _make(files: Any, folder: str) -> None:
    """Makes a folder with all above it, unless another machine is quicker."""
    if not folder or _is_there(files, folder):
        return
    _make(files, folder.rpartition("/")[0])
    try:
        files.mkdir(folder)
    except OSError:
        if not _is_there(files, folder):
            raise


def _is_there(files: Any, path: str) -> bool:
    try:
        files.stat(path)
    except FileNotFoundError:
        return False
    return True


def _replace(files: Any, new: str, path: str) -> None:
    """Renames a file onto another: at once with OpenSSH and most servers, else with a gap."""
    try:
        files.posix_rename(new, path)
    except PermissionError:
        raise
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            files.remove(path)
        files.rename(new, path)
