"""Requests to the Hub, through huggingface_hub and its cache; imported only to make them.

`HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_ENDPOINT`, `HF_HUB_OFFLINE` and the rest of its variables
hold as they do everywhere: it reads them when it is imported, and steps inherit them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from sdbuild.base.errors import DigestMismatch, Gated, SourceError, Unreachable
from sdbuild.checkpoints.hub import blobs

_TRANSPORT = (HfHubHTTPError.__bases__[0], OSError)
"""Errors that huggingface_hub does not wrap: those of its HTTP library (requests or httpx, by
version) and of sockets."""
_OURSELVES = {"library_name": "sdbuild"}
"""For the Hub's statistics."""
_DISK = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a full disk, which the file system raises without a file name."""


def list_files(place: str, repo: str, revision: str | None) -> tuple[str, dict[str, str]]:
    """Returns the commit that a revision is now, and the digest of each of its files.

    Raises:
        Gated: the repository is there, and we are not let in.
        Unreachable: the Hub does not answer, or asks us to wait.
        SourceError: no such repository or revision.
    """
    api = huggingface_hub.HfApi(**_OURSELVES)
    with _translated(place, repo):
        info = api.model_info(
            repo, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
        if info.gated:  # its listing is public, its files are not
            api.auth_check(repo)
        files = {
            file.rfilename: f"sha256:{file.lfs.sha256}" if file.lfs else f"git:{file.blob_id}"
            for file in info.siblings or ()
        }
    return str(info.sha), files


def cached(repo: str, revision: str | None) -> tuple[str, dict[str, str]] | None:
    """Returns the commit of a revision in the Hub's cache, and the files that are there.

    Source:
        huggingface_hub, "Understand caching": `refs/` hold commits, `snapshots/` links to blobs,
        which are named by their digests.
    """
    folder = blobs.folder(repo)
    wanted = revision or constants.DEFAULT_REVISION
    try:
        commit = (folder / "refs" / wanted).read_text().strip()
    except OSError:
        commit = wanted
    snapshot = folder / "snapshots" / commit
    files = {}
    for path in snapshot.rglob("*"):
        if path.is_symlink() and path.exists():
            name = path.readlink().name
            kind = {64: "sha256", 40: "git"}.get(len(name), "")
            files[path.relative_to(snapshot).as_posix()] = f"{kind}:{name}"
    return (commit, files) if files else None


def fetch(place: str, repo: str, commit: str, name: str, promised: str) -> tuple[Path, bool]:
    """Returns a file of a commit in the Hub's cache, and whether it had to be fetched again.

    One in LFS goes on where an earlier try was cut off. What lies in the cache is not believed: it
    is read and verified against its digest, and a wrong one is fetched again.

    Raises:
        DigestMismatch: what comes is not what is promised.
        SourceError: it cannot be had, or the cache does not take it.
    """
    kind, _, digest = promised.partition(":")
    for is_again in (False, True):
        with _translated(place, repo):
            if kind == "sha256" and not is_again:
                blobs.complete(repo, commit, name, digest, **_OURSELVES)
            path = Path(huggingface_hub.hf_hub_download(
                repo, name, revision=commit, force_download=is_again, **_OURSELVES
            ))
            found = _digest(path, kind)
        if found == promised:
            return path, is_again
    raise DigestMismatch(
        f"{place}: {name} came with the digest {found}, expected {promised}",
        hint="something between here and the Hub changes files; try another network",
        file=name, found=found, expected=promised,
    )


def _digest(path: Path, kind: str) -> str:
    """Returns the digest that the Hub knows a file by: of its bytes in LFS, else git's of a
    blob."""
    if kind == "git":
        content = path.read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        return f"git:{blob.hexdigest()}"
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


@contextlib.contextmanager
def _translated(place: str, repo: str) -> Iterator[None]:
    """Raises our errors for those of huggingface_hub, the HTTP library and the file system.

    Their own texts are left out: they may hold tokens, and endpoints with passwords.
    """
    try:
        yield
    except _TRANSPORT as error:
        raise _translate(place, repo, error) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Unreachable(
            f"{place}: {_host()} does not answer as a Hub does ({type(error).__name__})",
            hint="check HF_ENDPOINT, proxies and firewalls",
        ) from error


def _translate(place: str, repo: str, error: BaseException) -> SourceError:
    page = f"{_endpoint()}/{repo}"
    if isinstance(error, GatedRepoError):
        return Gated(
            f"{place}: its owner asks you to accept a licence first",
            hint=f"accept it at {page}, then log in with `hf auth login` or set HF_TOKEN",
            page=page,
        )
    if isinstance(error, RevisionNotFoundError):
        return SourceError(f"{place}: the repository has no such revision",
                           hint=f"its branches and commits are at {page}/commits/main")
    if isinstance(error, RepositoryNotFoundError):
        return SourceError(
            f"{place}: there is no such repository, or it is private",
            hint="check the spelling; for a private one log in with `hf auth login` or set "
                 "HF_TOKEN",
        )
    if isinstance(error, OfflineModeIsEnabled):
        return Unreachable(f"{place}: not in the cache, and HF_HUB_OFFLINE is set",
                           hint="unset HF_HUB_OFFLINE, or use another location with source=")
    if isinstance(error, HfHubHTTPError):
        return _refused(place, page, error)
    if isinstance(error, EntryNotFoundError) and error.__cause__ is not None:
        return _translate(place, repo, error.__cause__)  # "not in the cache" because of what?
    if isinstance(error, OSError) and (error.filename or error.errno in _DISK):
        return SourceError(f"{error.filename or constants.HF_HUB_CACHE}: {error.strerror}",
                           hint="make room, or put the Hub's cache elsewhere with HF_HUB_CACHE")
    if type(error) is OSError:  # huggingface_hub's error without a class of its own
        return Unreachable(f"{place}: {_host()} sent a file of another size than it promised",
                           hint="try again, or another network")
    return Unreachable(f"{place}: cannot reach {_host()}: {_reason(error)}",
                       hint="check the network, or use another location with source=")


def _refused(place: str, page: str, error: HfHubHTTPError) -> SourceError:
    """Returns the error for a status of the server."""
    status = error.response.status_code
    if status in (401, 403):
        return Gated(f"{place}: {_host()} denies access ({status})",
                     hint="log in with `hf auth login`, or set HF_TOKEN to a token that may read "
                          f"{page}", page=page)
    if status == 429:
        wait = error.response.headers.get("Retry-After", "")
        when = f"in {wait} seconds" if wait.isdigit() else "in some minutes"
        return Unreachable(f"{place}: {_host()} is rate limiting this machine (429)",
                           hint=f"try again {when}; logged in, more are allowed")
    if status == 404:
        return SourceError(f"{place}: a file no longer exists (404)")
    return Unreachable(f"{place}: {_host()} answers {status}",
                       hint="try again later, or use another location with source=")


def _reason(error: BaseException | None) -> str:
    """Returns the cause of a failed connection: the system's error at the bottom of the chain."""
    reason = type(error).__name__
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        error = error.__cause__ or error.__context__
    return reason


def _endpoint() -> str:
    """Returns the Hub's address without user and password."""
    parts = urlsplit(constants.ENDPOINT)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _host() -> str:
    return urlsplit(_endpoint()).netloc or f"HF_ENDPOINT={constants.ENDPOINT}"
