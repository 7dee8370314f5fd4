"""Files at a URL: the only module that knows fsspec, and the door where drivers' errors end.

A call takes as long as it may and no longer; an error names its place without credentials.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from sdbuild.errors import RecipeError, RemoteFailed, ToolMissing
from sdbuild.fields import did_you_mean

T = TypeVar("T")

TIMEOUT_S = 60.0
_SLOWEST = 100_000
"""Bytes a second. A transfer may take its bytes over this longer than `TIMEOUT_S`."""
_ATTEMPTS = 3
_PAUSE_S = 0.3
_PART_BYTES = 16 << 20
"""Of an upload or download in parts. Four of them are held in memory together."""
_MOST_PARTS = 9_999
"""S3 takes 10,000."""

DRIVERS = {
    "s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs",
    "http": "aiohttp", "https": "aiohttp", "webdav": "webdav4", "webdavs": "webdav4",
    "sftp": "paramiko", "ssh": "paramiko", "file": "", "memory": "",
}
"""Schemes that were thought through, and the package that each needs beside fsspec."""

_WHOLE = frozenset({"s3", "gs", "gcs", "az", "abfs", "http", "https"})
"""Where a file is there whole or not at all, and needs no folder. Elsewhere it is written under
another name and renamed."""

_NO_USER = frozenset({"s3", "gs", "gcs", "az", "abfs"})
"""Whose drivers take no credentials from a URL, but would send them as a bucket's name."""

_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
            "SDBUILD_REMOTE_SECRET")


class TooLarge(RemoteFailed):
    """A file has more bytes than it may."""


class Transport:
    """The files below a URL, or in a folder.

    Args:
        timeout_s: how long a call may take beside what its bytes need.

    Raises:
        RecipeError: the URL is none that can be used.
        ToolMissing: its driver is not installed.
    """

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        self._scheme, self._url = _parsed(url)
        self._timeout_s = timeout_s
        self._driver: tuple[int, Any, str] | None = None

    def __str__(self) -> str:
        return redacted(self._url, self._secrets())

    __repr__ = __str__

    def read(self, name: str, target: Path, limit: int) -> bool:
        """Copies a file to `target`; False if it is not there.

        Raises:
            RemoteFailed: it cannot be had.
            TooLarge: it has more than `limit` bytes.
        """
        def call() -> bool:
            driver, path = self._opened(name)
            try:
                driver.get_file(path, str(target), callback=_limit(name, limit))
            except FileNotFoundError:
                return False
            return True

        found = self._done(call, limit)
        if found and target.stat().st_size > limit:
            raise TooLarge(f"{name} is larger than its {limit} bytes")
        return found

    def size(self, name: str) -> int | None:
        """The bytes of a file; None if it is not there.

        Raises:
            RemoteFailed: nobody says.
        """
        def call() -> int | None:
            driver, path = self._opened(name)
            try:
                return driver.info(path)["size"]
            except FileNotFoundError:
                return None

        return self._done(call)

    def write(self, source: Path, name: str) -> None:
        """Copies a file there, whole or not at all, in place of what had its name.

        Raises:
            RemoteFailed: the place does not take it.
        """
        self._done(lambda: self._put(source, name), source.stat().st_size)

    def _put(self, source: Path, name: str) -> None:
        driver, path = self._opened(name)
        if self._scheme.startswith("http"):
            driver.put_file(str(source), path, method="put")
        elif self._scheme == "s3":
            part = max(_PART_BYTES, source.stat().st_size // _MOST_PARTS)
            driver.put_file(str(source), path, chunksize=part)
        elif self._scheme in _WHOLE:
            driver.put_file(str(source), path)
        else:
            folder = str(PurePosixPath(path).parent)
            new = f"{folder}/.new-{secrets.token_hex(8)}"
            driver.makedirs(folder, exist_ok=True)
            try:
                driver.put_file(str(source), new)
                driver.mv(new, path)
            except BaseException:
                with contextlib.suppress(Exception):
                    driver.rm_file(new)
                raise

    def _done(self, call: Callable[[], T], count: int = 0) -> T:
        """What `call` gives, tried again where that may help."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return _within(self._timeout_s + count / _SLOWEST, call)
            except RemoteFailed:
                raise
            except Exception as error:  # drivers raise whatever the libraries below them raise
                is_refused = _is_refusal(error)
                is_final = is_refused or _is_slow(error)
                if attempt == _ATTEMPTS or is_final:
                    raise RemoteFailed(
                        self._reason(error), is_refused=is_refused
                    ) from None  # the original may hold credentials
                time.sleep(_PAUSE_S * attempt)
        raise AssertionError

    def _reason(self, error: Exception) -> str:
        text = " ".join(str(error).split()) or type(error).__name__
        return redacted(text, self._secrets())[:200]

    def _secrets(self) -> set[str]:
        """Whatever must not be shown, in the forms that it may be met in."""
        if self._scheme in ("file", "memory"):
            return set()
        parts = urlsplit(self._url)
        found = [parts.password or "", parts.netloc.rpartition("@")[0]]
        found += [pair.partition("=")[2] for pair in parts.query.split("&")]
        found += [os.environ.get(name, "") for name in _SECRETS]
        return {form for text in found if len(text) > 3 for form in (text, unquote(text))}

    def _opened(self, name: str) -> tuple[Any, str]:
        """The driver, one a process since none outlives a fork, and the path of a file in it."""
        if self._driver is None or self._driver[0] != os.getpid():
            self._driver = (os.getpid(), *self._open())
        _, driver, root = self._driver
        base, query, token = root.partition("?")
        return driver, f"{base.rstrip('/')}/{name}{query}{token}".lstrip(
            "/" if self._scheme.startswith("webdav") else ""
        )

    def _open(self) -> tuple[Any, str]:
        import fsspec

        parts = urlsplit(self._url)
        own: dict[str, Any] = {}
        if self._scheme.startswith("webdav"):
            host = parts.netloc.rpartition("@")[2]
            scheme = "https" if self._scheme == "webdavs" else "http"
            own = {"base_url": f"{scheme}://{host}{parts.path}", "timeout": self._timeout_s}
            if parts.username is not None:
                own["auth"] = (unquote(parts.username), unquote(parts.password or ""))
            return fsspec.filesystem("webdav", skip_instance_cache=True, **own), ""
        if self._scheme == "s3":
            own = {
                "default_block_size": _PART_BYTES, "max_concurrency": 4,
                "config_kwargs": {
                    "connect_timeout": min(10, self._timeout_s / 2),
                    "read_timeout": self._timeout_s / 2,
                    "retries": {"mode": "standard", "total_max_attempts": 2},
                },
            }
        driver, root = fsspec.url_to_fs(
            self._url, use_listings_cache=False, skip_instance_cache=True, **own
        )
        if self._scheme == "s3":
            driver.retries = 1  # once here, twice in botocore
        return driver, root


def redacted(text: str, secret: Iterable[str] = ()) -> str:
    """The text without credentials: none of `secret`, no user in a URL, no value in its query."""
    for word in sorted(secret, key=len, reverse=True):
        text = text.replace(word, "…")
    text = re.sub(r"([a-zA-Z][\w+.-]*://)[^/\s@]*@", r"\1", text)
    return re.sub(r"([?&][^=\s&?]+=)[^&\s'\"]+", r"\1…", text)


def _parsed(url: str) -> tuple[str, str]:
    """The scheme of a URL, and the URL; a folder becomes absolute.

    Raises:
        RecipeError, ToolMissing: it cannot be used; says so without its credentials.
    """
    scheme, mark, rest = url.partition("://")
    if not mark:
        return "file", str(Path(url).absolute())
    if scheme not in DRIVERS:
        raise RecipeError(
            f"remote={redacted(url)}: unknown scheme {scheme!r}{did_you_mean(scheme, DRIVERS)}",
            hint=f"the schemes are: {', '.join(DRIVERS)}; or a folder",
        )
    if not rest.strip("/"):
        raise RecipeError(f"remote={url}: it names no place", hint="such as s3://bucket/folder")
    if scheme in _NO_USER and "@" in rest.partition("/")[0]:
        raise RecipeError(
            f"remote={redacted(url)}: credentials in the URL are not taken for {scheme}",
            hint="they belong in the environment or its driver's own file (docs/remote.md)",
        )
    driver = DRIVERS[scheme]
    if driver and find_spec(driver) is None:
        raise ToolMissing(
            f"remote={redacted(url)}: the package {driver} is not installed.",
            hint=f"pip install {driver}",
        )
    return scheme, url


def _is_refusal(error: Exception) -> bool:
    """Whether trying again cannot help: not allowed, or no room."""
    return isinstance(error, PermissionError | FileNotFoundError | NotADirectoryError) or (
        isinstance(error, OSError)
        and error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES, errno.EPERM)
    ) or getattr(error, "status", 0) in (401, 403, 405, 507)


def _is_slow(error: Exception) -> bool:
    """Whether a driver lost patience itself, by whatever name its library has for that."""
    return isinstance(error, TimeoutError) or "Timeout" in type(error).__name__


def _limit(name: str, count: int) -> Any:
    """A callback of fsspec that ends a download that brings more than was promised."""
    from fsspec.callbacks import Callback

    class Limit(Callback):
        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            if self.value > count:
                raise TooLarge(f"{name} is larger than its {count} bytes")

    return Limit()


def _within(seconds: float, call: Callable[[], T]) -> T:
    """What `call` gives, if it ends in time; else it is left behind.

    Raises:
        RemoteFailed: it does not.
    """
    result: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            result.append(call())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise RemoteFailed(f"no answer in {seconds:.0f} s")
    if raised:
        raise raised[0]
    return result[0]
