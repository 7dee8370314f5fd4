"""Every error that sdbuild raises on purpose.

SDBuildError
├─ RecipeError     a recipe or a command-line variable is not what it should be
├─ SourceError     a checkpoint cannot be had or is not sound
│  ├─ Gated            its owner must let you in first
│  ├─ Unreachable      the place does not answer, or not now
│  └─ DigestMismatch   its content is not what was promised
├─ StepError       a step cannot do its work
│  ├─ ToolMissing      a program or package that the step needs is not here
│  ├─ OutOfMemory      it needs more memory than it may have
│  └─ CheckFailed      a component or a picture is not what the original's is
├─ StoreError      the store cannot keep or give an artifact
│  ├─ MissingArtifact  its content is not in the store
│  ├─ CorruptArtifact  its content is not what its digest says
│  └─ RemoteFailed     the shared store does not answer, or refuses
├─ MILError        an ML Program cannot be handled
│  ├─ InvalidProgram   it breaks the format's rules
│  ├─ UnsupportedOp    it uses operations that the portable executor lacks
│  └─ UnsupportedFormat  it uses a part of the format that is not known for certain
└─ BundleError     a bundle cannot be used
   ├─ ContractBroken   a host would crash or misbehave on it
   └─ NotFinite        one of its networks gives NaN or infinity

Anything else that reaches a user is a bug in sdbuild.
"""


class SDBuildError(Exception):
    """An error: what failed, where, found and expected.

    `hint` says what helps, and `facts` are for programs.
    """

    def __init__(self, message: str, *, hint: str = "", **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.facts = facts

    def __str__(self) -> str:
        return f"{self.message}\n\nhint: {self.hint}" if self.hint else self.message


class RecipeError(SDBuildError):
    """A recipe or a command-line variable is not what it should be."""


class SourceError(SDBuildError):
    """A checkpoint cannot be had or is not sound."""


class Gated(SourceError):
    """The owner of a checkpoint must let you in first: a licence to accept, a token to send."""


class Unreachable(SourceError):
    """The place of a checkpoint does not answer, or not now."""


class DigestMismatch(SourceError):
    """The content of a checkpoint is not what its place, or a lock, promises."""


class StepError(SDBuildError):
    """A step cannot do its work."""


class ToolMissing(StepError):
    """A program or package that a step needs is not on this machine."""


class OutOfMemory(StepError):
    """A step needs more memory than it may have, or was killed for want of it."""


class CheckFailed(StepError):
    """A component differs from its PyTorch original by more than its floor allows, or the pictures
    are not those of the original."""


class StoreError(SDBuildError):
    """The store cannot keep or give an artifact."""


class MissingArtifact(StoreError):
    """The content of an artifact is not in the store."""


class CorruptArtifact(StoreError):
    """The content of an artifact is not what its digest says."""


class RemoteFailed(StoreError):
    """A shared store does not answer; or, if `is_refused`, does not allow what was asked."""

    def __init__(self, message: str, *, is_refused: bool = False) -> None:
        super().__init__(message)
        self.is_refused = is_refused


class MILError(SDBuildError):
    """An ML Program cannot be handled."""


class InvalidProgram(MILError):
    """An ML Program or its files break the format's rules."""


class UnsupportedOp(MILError):
    """An ML Program uses operations that the portable executor lacks."""


class UnsupportedFormat(MILError):
    """An ML Program uses a part of the format that is not known for certain."""


class BundleError(SDBuildError):
    """A bundle cannot be used."""


class ContractBroken(BundleError):
    """A host would crash or misbehave on this bundle."""


class NotFinite(BundleError):
    """A network of a bundle gives NaN or infinity, which would be a black picture."""
