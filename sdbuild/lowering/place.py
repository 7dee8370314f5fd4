"""What each blob of a lowered program is: a parameter's place, or a constant of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from sdbuild.errors import StepError
from sdbuild.lowering.bind import Binding, Lowered, inline_constants
from sdbuild.lowering.standins import StandIns, Written
from sdbuild.mil.blob import BlobWriter
from sdbuild.mil.decode import decode_program
from sdbuild.mil.proto import Message


def lowered(
    standins: StandIns, written: Iterable[Written], spec: Message, folder: Path
) -> Lowered:
    """The lowered program with what belongs where; writes `constants.bin` into `folder`.

    Raises:
        StepError: a parameter is not in the program exactly once; a guess would be a wrong weight.
    """
    constants = folder / "constants.bin"
    with BlobWriter(constants) as writer:
        bindings = [_blob(standins, blob, writer) for blob in written]
    bindings += _inline(standins, spec)
    _check_once(standins.shapes, bindings)
    return Lowered(
        spec=spec, parameters=standins.shapes, bindings=tuple(bindings), constants=constants
    )


def _blob(standins: StandIns, blob: Written, constants: BlobWriter) -> Binding:
    found = standins.parameter(blob.array)
    if found is None:
        place = constants.write(blob.dtype, blob.array.tobytes())
        return Binding(
            dtype=blob.dtype, shape=blob.array.shape, offset=blob.offset, constant=place
        )
    parameter, is_transposed = found
    return Binding(
        dtype=blob.dtype, shape=blob.array.shape, offset=blob.offset, parameter=parameter,
        is_transposed=is_transposed,
    )


def _inline(standins: StandIns, spec: Message) -> Iterator[Binding]:
    """The parameters so small that coremltools writes them into the program itself."""
    for name, dtype, shape, elements in inline_constants(decode_program(spec.mlProgram)):
        found = standins.parameter(elements.reshape(shape))
        if found is not None:
            yield Binding(
                dtype=dtype, shape=shape, value=name, parameter=found[0], is_transposed=found[1]
            )


def _check_once(shapes: Mapping[str, tuple[int, ...]], bindings: Iterable[Binding]) -> None:
    counts = Counter(b.parameter for b in bindings if b.parameter is not None)
    wrong = [f"{name}: {counts[name]} times" for name in shapes if counts[name] != 1]
    if wrong:
        raise StepError(
            "parameters that the lowered program does not hold exactly once:\n  "
            + "\n  ".join(wrong[:8]),
            hint="lower=direct converts without stand-ins",
        )
