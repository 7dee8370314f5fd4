"""A network that is published alone, and the checkpoint that says how it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sdbuild.checkpoints import layout

if TYPE_CHECKING:
    from sdbuild.checkpoints import Checkpoint
    from sdbuild.checkpoints.folder import DigestOf
    from sdbuild.safetensors.tensors import Tensor


class Beside:
    """A network from one place, with scheduler and tokenizer from another unless its own place has
    them: whole pipelines do, few-step U-Nets alone do not."""

    def __init__(self, network: Checkpoint, other: Checkpoint) -> None:
        self.network, self.other = network, other
        self.place = network.place
        self._described_by = network if network.has(layout.RESOURCES) else other

    def __repr__(self) -> str:
        return str(self.network)

    @property
    def origin(self) -> Mapping[str, Any]:
        """Returns the origin of the network."""
        return self.network.origin

    def identity(self, part: str, digest_of: DigestOf) -> Mapping[str, str]:
        """Returns the digest of each file of the part, of the other checkpoint's under names of
        their own."""
        if part in layout.FOLDERS and self._described_by is self.other:
            return {f"beside/{name}": digest
                    for name, digest in self.other.identity(part, digest_of).items()}
        return self.network.identity(part, digest_of)

    def has(self, part: str) -> bool:
        """Whether the network's place has the component."""
        return self.network.has(part)

    def config(self, part: str) -> Mapping[str, Any]:
        """Returns the network's config."""
        return self.network.config(part)

    def tensors(self, part: str) -> Mapping[str, Tensor]:
        """Returns the network's tensors."""
        return self.network.tensors(part)

    def resources(self) -> Mapping[str, bytes]:
        """Returns scheduler and tokenizer, of the place that has them."""
        return self._described_by.resources()
