"""Variants fetched from the Hub: each file verified against the digests of the card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbuild.base.digest import sha256_file
from sdbuild.base.errors import BundleError, DigestMismatch, RecipeError
from sdbuild.base.parsing import read_file, shown
from sdbuild.base.suggestions import did_you_mean
from sdbuild.checkpoints import check_place, is_hub
from sdbuild.checkpoints.hub.hub import Hub, open_hub
from sdbuild.publish import names
from sdbuild.publish.card import CARD, Section, sections
from sdbuild.store.disk import guarded, link_out

_LARGEST_CARD_BYTES = 8 << 20
OTHER = "choose another location with bundle=FOLDER"
"""The hint where a variant cannot be laid out."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """A file that is not as the card says: what is wrong with it."""

    path: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A repository at one commit, with the digest of each file as the Hub names it, and one of the
    variants that its card describes."""

    hub: Hub
    digests: Mapping[str, str]
    section: Section

    @property
    def own(self) -> Iterator[str]:
        """The files of the variant's folder, without zips and images."""
        start = f"{self.section.folder}/"
        return (path for path in self.section.files if path.startswith(start))

    def flaws(self) -> list[Flaw]:
        """Returns the files that are not those of the card. Of files in LFS the repository itself
        says so; only others are fetched."""
        found = []
        for path, each in sorted(self.section.files.items()):
            digest = self.digests.get(path, "")
            if path not in self.hub.names:
                found.append(Flaw(path, "is not there"))
            elif digest.startswith("sha256:"):
                if digest != f"sha256:{each.sha256}":
                    found.append(Flaw(path, "is not the file of the card"))
            elif not self._is_as_listed(path):
                found.append(Flaw(path, "is not the file of the card"))
        return found

    def _is_as_listed(self, path: str) -> bool:
        """Whether a small file, which the Hub knows by git's digest alone, is that of the card."""
        try:
            self.file(path)
        except DigestMismatch:
            return False
        return True

    def file(self, path: str) -> Path:
        """Returns a file of the variant, whole and as the card has it.

        Raises:
            DigestMismatch: it is another.
            SourceError: it cannot be had.
        """
        if path not in self.hub.names:
            raise DigestMismatch(f"{self.hub.place}: {path} is not there, and the card lists it",
                                 hint="ask its owner to publish it again")
        found = self.hub.file(path)
        wanted = self.section.files[path].sha256
        if (digest := sha256_file(found)) != wanted:
            raise DigestMismatch(
                f"{self.hub.place}: {path} has the SHA-256 {digest}, and the card says {wanted}",
                hint="it was changed after it was published; ask its owner", file=path,
                found=digest, expected=wanted)
        return found

    def lay_out(self, target: Path) -> None:
        """Lays the variant's bundle out in a folder that is not there.

        Raises:
            DigestMismatch: a file is not as the card says.
            SourceError: one cannot be had.
        """
        start = len(self.section.folder) + 1
        for path in self.own:
            source = self.file(path).resolve()
            with guarded(target, OTHER):
                link_out(source, target / path[start:])


def published_at(place: str, wanted: str | None) -> Published:
    """Returns a variant of a repository.

    Raises:
        RecipeError: it is a path or no place on the Hub, or several variants are meant.
        BundleError: sdbuild published nothing there, or no such variant.
        SourceError: the Hub does not have it.
    """
    if place.startswith((".", "/", "~")):
        raise RecipeError(f"{shown(place)}: a path, expected hub:owner/name",
                          hint="`sdbuild verify` and `sdbuild diff` take bundles on this machine")
    try:
        place = check_place(place if is_hub(place) else f"hub:{place}")
    except ValueError as error:
        raise RecipeError(f"{shown(place)}: expected {error}") from error
    facts: dict[str, Any] = {}
    hub = open_hub(place, facts)
    found: Mapping[str, Section] = {}
    if CARD in hub.names:
        card = read_file(hub.file(CARD), BundleError, most_bytes=_LARGEST_CARD_BYTES)
        found = sections(card.decode("utf-8", "replace"))
    if not found:
        raise BundleError(f"{hub.place}: its card describes no variant of sdbuild's",
                          hint="sdbuild generate hub:owner/name works with models of any maker")
    fits = names.chosen(found, wanted)
    if not fits:
        raise BundleError(f"{hub.place}: no variant {shown(wanted)}"
                          f"{did_you_mean(str(wanted), found)}",
                          hint=f"its variants are: {', '.join(found)}")
    if len(fits) > 1:
        raise RecipeError(f"{hub.place}: {len(fits)} variants",
                          hint=f"variant=NAME, one of: {', '.join(fits)}")
    return Published(hub=hub, digests=facts.get(hub.place, {}), section=found[fits[0]])
