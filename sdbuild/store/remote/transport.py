"""Files at a URL: the one place where errors of drivers (`backends.py`) are translated.

A call takes as long as it may and no longer; an error names its place without credentials.
"""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from sdbuild.base.errors import RecipeError, RemoteFailed, ToolMissing
from sdbuild.base.suggestions import did_you_mean
from sdbuild.store.remote.backends import KINDS, Backend
from sdbuild.store.remote.rate import Rate, guessed

T = TypeVar("T")

TIMEOUT_S = 60.0
_SLOWEST = 100_000
"""Bytes a second. A transfer may take its bytes over this longer than `TIMEOUT_S`."""
_RATES: dict[str, Rate] = {}
"""The rates that this process measured, by URL: a build opens a place anew for each step."""
_ATTEMPTS = 3
_PAUSE_S = 0.3
_SECRETS = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_STORAGE_CONNECTION_STRING", "SDBUILD_REMOTE_SECRET",
)


class TooLarge(RemoteFailed):
    """A file has more bytes than it may."""


class Transport:
    """The files below a URL, or in a folder.

    Args:
        timeout_s: the limit of a call, on top of the time that its bytes need.

    Raises:
        RecipeError: the URL is none that can be used.
        ToolMissing: its driver is not installed.
    """

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        self._scheme, self._url = _parsed(url)
        self._timeout_s = timeout_s
        self._opened: dict[tuple[int, int], Backend] = {}

    def __str__(self) -> str:
        return redacted(self._url, self._secrets())

    __repr__ = __str__

    def read(self, name: str, target: Path, limit: int) -> bool:
        """Copies a file to `target`; False if it is not there.

        Raises:
            RemoteFailed: it cannot be had.
            TooLarge: it has more than `limit` bytes.
        """
        def grown() -> None:  # a driver may begin anew, so what came is not counted
            if target.exists() and target.stat().st_size > limit:
                raise TooLarge(f"{name} is larger than its {limit} bytes")

        def call(backend: Backend) -> bool:
            try:
                backend.get(name, target, grown)
            except FileNotFoundError:
                return False
            grown()
            return True

        return self._done(call, limit)

    def size(self, name: str) -> int | None:
        """Returns the bytes of a file; None if it is not there.

        Raises:
            RemoteFailed: nobody says.
        """
        def call(backend: Backend) -> int | None:
            try:
                return backend.size(name)
            except FileNotFoundError:
                return None

        return self._done(call)

    def names(self, folder: str = "") -> list[str]:
        """Returns the files and folders in a folder there, or below the URL; none if it is not
        there.

        Raises:
            RemoteFailed: it cannot be listed.
        """
        return sorted(self._done(lambda place: place.names(folder)))

    @property
    def folder(self) -> Path | None:
        """Returns where on this machine it is, if it is a folder of it."""
        return Path(self._url.removeprefix("file://")) if self._scheme == "file" else None

    @property
    def rate(self) -> Rate:
        """The rate at which this process sent files there."""
        return _RATES.get(self._url) or guessed(self._url)

    def write(self, source: Path, name: str) -> None:
        """Copies a file there, whole or not at all, in place of what had its name.

        Raises:
            RemoteFailed: the place does not take it.
        """
        count, began = source.stat().st_size, time.monotonic()
        self._done(lambda place: place.put(source, name), count, is_write=True)
        _RATES[self._url] = self.rate.after(count, time.monotonic() - began)

    def _done(self, call: Callable[[Backend], T], count: int = 0, *, is_write: bool = False) -> T:
        """Returns what `call` gives, tried again where that may help."""
        user = os.getpid(), threading.get_ident()
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return _within(
                    self._timeout_s + count / _SLOWEST, lambda: call(self._backend(user)))
            except RemoteFailed:
                raise
            except Exception as error:  # drivers raise whatever the libraries below them raise
                is_stranger = _status(error) == 401 and not is_write  # it may be read by all
                is_refused = _is_refusal(error) and not is_stranger
                is_final = is_refused or is_stranger or _is_slow(error)
                if attempt == _ATTEMPTS or is_final:
                    raise RemoteFailed(
                        self._reason(error), is_refused=is_refused
                    ) from None  # the original may hold credentials
                time.sleep(_PAUSE_S * attempt)
        raise AssertionError

    def _reason(self, error: Exception) -> str:
        said = getattr(error, "message", "") if _status(error) else ""  # without the file's URL
        text = f"{_status(error)} {said}" if said else str(error)
        text = " ".join(text.split()) or type(error).__name__
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

    def _backend(self, user: tuple[int, int]) -> Backend:
        """Returns the place as a process and thread use it: no driver outlives a fork, and some
        serve one thread at a time."""
        if user not in self._opened:
            self._opened[user] = KINDS[self._scheme].backend(self._url, self._timeout_s)
        return self._opened[user]


def redacted(text: str, secret: Iterable[str] = ()) -> str:
    """Returns the text without credentials: none of `secret`, no user in a URL, no value in its
    query."""
    for word in sorted(secret, key=len, reverse=True):
        text = text.replace(word, "…")
    text = re.sub(r"([a-zA-Z][\w+.-]*://)[^/\s@]*@", r"\1", text)
    return re.sub(r"([?&][^=\s&?]+=)[^&\s'\"]+", r"\1…", text)


def _parsed(url: str) -> tuple[str, str]:
    """Returns the scheme of a URL, and the URL; a folder becomes absolute.

    Raises:
        RecipeError, ToolMissing: it cannot be used; says so without its credentials.
    """
    scheme, mark, rest = url.partition("://")
    if not mark:
        return "file", str(Path(url).absolute())
    if scheme not in KINDS:
        raise RecipeError(
            f"remote={redacted(url)}: unknown scheme {scheme!r}{did_you_mean(scheme, KINDS)}",
            hint=f"the schemes are: {', '.join(KINDS)}; or a folder",
        )
    kind = KINDS[scheme]
    if not rest.strip("/"):
        raise RecipeError(f"remote={url}: it has no bucket, host or folder", hint="such as s3://bucket/folder")
    if not kind.takes_user and "@" in rest.partition("/")[0]:
        raise RecipeError(
            f"remote={redacted(url)}: credentials in the URL are not supported for {scheme}",
            hint="they belong in the environment or its driver's own file (docs/remote.md)",
        )
    if kind.package and find_spec(kind.package) is None:
        raise ToolMissing(
            f"remote={redacted(url)}: the package {kind.package} is not installed.",
            hint=f"pip install {kind.package}",
        )
    return scheme, url


def _is_refusal(error: Exception) -> bool:
    """Whether trying again cannot help: not allowed, or no room."""
    return isinstance(error, PermissionError | FileNotFoundError | NotADirectoryError) or (
        isinstance(error, OSError)
        and error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES, errno.EPERM)
    ) or _status(error) in (401, 403, 405, 507)


def _status(error: Exception) -> int:
    """Returns that of HTTP, or 0: where aiohttp, Google's and Azure's libraries have it."""
    found = (getattr(error, name, 0) for name in ("status", "status_code", "code"))
    return next((status for status in found if isinstance(status, int) and status), 0)


def _is_slow(error: Exception) -> bool:
    """Whether a driver lost patience itself, by whatever name its library has for that."""
    return isinstance(error, TimeoutError) or "Timeout" in type(error).__name__


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Returns what `call` gives, if it ends in time; else it is left behind.

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
