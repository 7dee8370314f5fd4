"""Writing to a repository of the Hub, through huggingface_hub; imported only to do it."""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, constants
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from sdbuild.base.errors import Gated, SourceError, Unreachable
from sdbuild.base.printable import unwrapped

_INVALID = re.compile(r'^- (?:Error: )?"([\w.\[\]-]{1,60})"', re.MULTILINE)
"""A field of a model card's metadata that the Hub refuses."""
LOG = logging.getLogger(__name__)
_API = huggingface_hub.HfApi(library_name="sdbuild")


class Repository:
    """A repository as it is now: its commit, and the digest of each file; none if it is not
    there.

    Args:
        is_offline: the Hub is not asked; the repository is as if it were not there.
    """

    def __init__(self, name: str, *, is_offline: bool = False) -> None:
        self.name = name
        self.place = f"hub:{name}"
        self.commit: str | None = None
        self.digests: Mapping[str, str] = {}
        if is_offline:
            return
        with _told(self.place):
            try:
                info = _API.model_info(name, files_metadata=True,
                                       timeout=constants.HF_HUB_ETAG_TIMEOUT)
            except RepositoryNotFoundError:
                return
            self.commit = str(info.sha)
            self.digests = {
                file.rfilename: f"sha256:{file.lfs.sha256}" if file.lfs else f"git:{file.blob_id}"
                for file in info.siblings or ()}

    @property
    def exists(self) -> bool:
        """Whether the repository exists and this user may read it."""
        return self.commit is not None

    @property
    def page(self) -> str:
        """Its page."""
        return f"{constants.ENDPOINT}/{self.name}"

    def text(self, path: str) -> str:
        """Returns the text of a file at this commit.

        Raises:
            SourceError: it cannot be had.
        """
        with _told(self.place), _with_bars():
            found = huggingface_hub.hf_hub_download(
                self.name, path, revision=self.commit, library_name="sdbuild")
        return Path(found).read_text("utf-8", "replace")

    def write(
        self, files: Mapping[str, Path | bytes], gone: Iterable[str], message: str, is_private: bool
    ) -> str:
        """Writes files and removes some, in one commit; its page.

        What was uploaded before a cut is not uploaded again.

        Raises:
            SourceError: the Hub does not take it, or somebody else wrote meanwhile.
        """
        with _told(self.place), _with_bars():
            if not self.exists:
                _API.create_repo(self.name, private=is_private or None, exist_ok=True)
                self.commit = str(_API.model_info(self.name).sha)
            return self._commit(files, sorted(gone), message)

    def _commit(
        self, files: Mapping[str, Path | bytes], gone: Sequence[str], message: str
    ) -> str:
        def operations(is_plain: bool) -> list[Any]:
            added = [CommitOperationAdd(path, _content(content, is_plain))
                     for path, content in sorted(files.items())]
            return [*added, *(CommitOperationDelete(path, is_folder=False) for path in gone)]

        def send(is_plain: bool) -> str:
            made = _API.create_commit(self.name, operations(is_plain), commit_message=message,
                                      parent_commit=self.commit)
            return str(made.commit_url)

        try:
            return send(False)
        except (HfHubHTTPError, RuntimeError, OSError) as error:
            if not _is_of_xet(error):
                raise
            LOG.info("%s: no upload by xet here (%s); by LFS instead", self.place,
                     type(error).__name__)
            return send(True)


@contextmanager
def _with_bars() -> Iterator[None]:
    """Lets huggingface_hub draw its bars on a terminal, which they steer, and nowhere else."""
    stream = unwrapped(sys.stderr)
    if stream.isatty():
        with redirect_stderr(stream):
            yield
        return
    were_off = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_off:
            enable_progress_bars()


def _content(content: Path | bytes, is_plain: bool) -> Any:
    """Returns a file as huggingface_hub takes it. An open one is never uploaded by xet."""
    if isinstance(content, bytes):
        return content
    return io.BufferedReader(content.open("rb", buffering=0)) if is_plain else str(content)


def _is_of_xet(error: Exception) -> bool:
    """Whether the store of chunks may have failed, which not every server has: anything but an
    answer of the Hub itself."""
    return not isinstance(error, HfHubHTTPError) or "/xet-" in str(error.response.url)


@contextmanager
def _told(place: str) -> Iterator[None]:
    """Raises our errors for those of huggingface_hub and the network, without their own texts,
    which may hold tokens."""
    try:
        yield
    except HfHubHTTPError as error:
        raise _refused(place, error.response.status_code) from error
    except (*HfHubHTTPError.__bases__, OSError, RuntimeError, ValueError) as error:
        if fields := _INVALID.findall(str(error)) if type(error) is ValueError else []:
            raise SourceError(
                f"{place}: the Hub refuses the model card, for its {', '.join(fields)}",
                hint="nothing was published; licence=NAME is a name of the Hub's list, or other"
            ) from error
        raise Unreachable(f"{place}: the Hub cannot be reached, or does not take what is sent "
                          f"({type(error).__name__})",
                          hint="check the network, then publish again; an interrupted upload "
                               "resumes") from error


def _refused(place: str, status: int) -> SourceError:
    """Returns the error for a status of the Hub."""
    if status in (401, 403, 404):
        return Gated(f"{place}: the Hub does not let you write there",
                     hint="log in with `hf auth login`, or set HF_TOKEN to a token that may write")
    if status == 412:
        return SourceError(f"{place}: it was changed by others meanwhile",
                           hint="publish again: what is there already is kept")
    return Unreachable(f"{place}: the Hub answers {status}",
                       hint="publish again later; an interrupted upload resumes")
