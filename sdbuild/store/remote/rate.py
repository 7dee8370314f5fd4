"""The rate of transfers to a place: guessed by its kind, then measured."""

from __future__ import annotations

from dataclasses import dataclass

from sdbuild.store.remote.backends import KINDS, NETWORK_BYTES_S

SIZEABLE_BYTES = 1 << 20
"""A smaller file takes about as long as asking whether it is there, and tells nothing of bytes."""

_GUESS_BYTES = 16 << 20
"""A guess counts as much as one transfer of this size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """The bytes and seconds of the latest transfers; each new one halves those before it."""

    sent_bytes: float
    seconds: float

    @property
    def bytes_s(self) -> float:
        """Bytes a second."""
        return self.sent_bytes / self.seconds

    def after(self, sent_bytes: int, seconds: float) -> Rate:
        """Returns the rate after one more transfer; a small one changes nothing."""
        if sent_bytes < SIZEABLE_BYTES or seconds <= 0:
            return self
        return Rate(sent_bytes=self.sent_bytes / 2 + sent_bytes, seconds=self.seconds / 2 + seconds)


def guessed(url: str | None) -> Rate:
    """Returns the rate of a place before anything was sent there, by its scheme; that of a server
    if none is named."""
    scheme, mark, _ = (url or "").partition("://")
    kind = KINDS.get(scheme if mark or not url else "file")
    bytes_s = kind.bytes_s if kind else NETWORK_BYTES_S
    return Rate(sent_bytes=_GUESS_BYTES, seconds=_GUESS_BYTES / bytes_s)
