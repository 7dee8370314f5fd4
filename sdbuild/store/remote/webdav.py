"""A folder that is reached by WebDAV (RFC 4918)."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_EXISTS = 405
_NO_PARENT = (404, 409)
_MULTI_STATUS = 207
"""In answer to `MOVE`, that part of it failed."""
_NAMES = b'<?xml version="1.0"?><propfind xmlns="DAV:"><prop><resourcetype/></prop></propfind>'
_HREF = re.compile(r"<(?:\w+:)?href[^>]*>\s*([^<\s]+)\s*</")


class Refused(OSError):
    """A server did not do what it was asked; `status` as of HTTP."""

    def __init__(self, method: str, status: int, reason: str) -> None:
        super().__init__(f"{method}: {status} {reason}".rstrip())
        self.status = status


class WebDAV:
    """Files below a URL of WebDAV, each written under another name and renamed."""

    def __init__(self, url: str, timeout_s: float) -> None:
        import httpx

        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        self._host = f"{'https' if parts.scheme == 'webdavs' else 'http'}://{host}"
        self._root = parts.path.rstrip("/")
        self._query = f"?{parts.query}" if parts.query else ""
        self._client = httpx.Client(
            auth=(unquote(parts.username), unquote(parts.password or ""))
            if parts.username is not None else None,
            headers={"Accept-Encoding": "identity"},  # `Content-Length` shall be the file's
            timeout=timeout_s,
        )

    def get(self, name: str, target: Path, grown: Callable[[], None]) -> None:
        """As `Backend` says."""
        with self._client.stream("GET", self._at(name), follow_redirects=True) as answer:
            _check(answer, name)
            with target.open("wb") as file:
                for part in answer.iter_raw():
                    file.write(part)
                    grown()

    def size(self, name: str) -> int:
        """As `Backend` says; -1 of a server that does not say."""
        answer = self._client.head(self._at(name), follow_redirects=True)
        _check(answer, name)
        return int(answer.headers.get("Content-Length", -1))

    def put(self, source: Path, name: str) -> None:
        """As `Backend` says."""
        folder, slash, _ = name.rpartition("/")
        new = f"{folder}{slash}.new-{secrets.token_hex(8)}"
        self._make(f"{self._root}/{folder}".rstrip("/"))
        try:
            with source.open("rb") as file:
                self._ask("PUT", self._at(new), content=file)
            self._ask("MOVE", self._at(new), headers={
                "Destination": self._at(name), "Overwrite": "T"})
        except BaseException:
            with contextlib.suppress(Exception):
                self._ask("DELETE", self._at(new))
            raise

    def names(self, folder: str) -> list[str]:
        """As `Backend` says."""
        own = f"{self._root}/{folder}".rstrip("/")
        url = f"{self._host}{own}/{self._query}"
        answer = self._client.request("PROPFIND", url, headers={"Depth": "1"}, content=_NAMES)
        try:
            _check(answer, url)
        except FileNotFoundError:
            return []
        paths = [urlsplit(unescape(found)).path.rstrip("/") for found in _HREF.findall(answer.text)]
        return [unquote(path.rpartition("/")[2]) for path in paths if unquote(path) != unquote(own)]

    def _make(self, folder: str) -> None:
        """Makes a folder with all above it, if it is not there."""
        try:
            self._make_one(folder)
        except (Refused, FileNotFoundError) as error:
            parent = folder.rpartition("/")[0]
            if getattr(error, "status", 404) not in _NO_PARENT or not parent:
                raise
            self._make(parent)
            self._make_one(folder)

    def _make_one(self, folder: str) -> None:
        try:
            self._ask("MKCOL", f"{self._host}{folder}/{self._query}")
        except Refused as error:
            if error.status != _EXISTS:
                raise

    def _at(self, name: str) -> str:
        return f"{self._host}{self._root}/{name}{self._query}"

    def _ask(self, method: str, url: str, **options: Any) -> None:
        _check(self._client.request(method, url, **options), url)


def _check(answer: Any, name: str) -> None:
    """Raises Refused or FileNotFoundError if a request failed."""
    if answer.status_code == 404:
        raise FileNotFoundError(name)
    is_listing = answer.request.method == "PROPFIND"
    if not answer.is_success or (answer.status_code == _MULTI_STATUS and not is_listing):
        raise Refused(answer.request.method, answer.status_code, answer.reason_phrase)
