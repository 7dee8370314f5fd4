"""Diff: what two models differ in, by name: metadata, program and weights.

Weights are compared by what lies in their blobs, not by where; so a copy differs in nothing. Inputs
and outputs of a model and arguments of an operation are compared by name: their order in the file
means nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from sdbuild.mil.files.compiled import PROGRAM_FILE
from sdbuild.mil.files.package import Model
from sdbuild.mil.files.validate import blocks
from sdbuild.mil.inspect.summary import feature_text, placed
from sdbuild.mil.ir.program import Blob, Function, Operation, Value, type_text
from sdbuild.mil.ir.proto import Message
from sdbuild.mil.ir.traverse import moved, walk

COMPILER_ATTRIBUTE = "buildInfo"
"""The attribute of a program that compilers change."""
_NOWHERE = Blob("", 0)
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that differs; `before` or `after` is empty where the thing is not there."""

    part: str
    name: str
    before: str
    after: str


def differences(before: Model, after: Model) -> tuple[Difference, ...]:
    """Returns what `after` differs in from `before`.

    Raises:
        InvalidProgram: a blob breaks the format.
    """
    return (
        *_compare("metadata", _metadata(before), _metadata(after), str),
        *_compare("program", *_functions_of_both(before, after), str),
        *_compare_operations(_operations(before), _operations(after)),
        *_order(before, after),
        *_compare("weights", _weights(before), _weights(after), str),
    )


def one_is_compiled(before: Model, after: Model) -> bool:
    """Whether one is a compiled model and the other a package."""
    return len({(model.root / PROGRAM_FILE).is_file() for model in (before, after)}) == 2


def _functions_of_both(before: Model, after: Model) -> tuple[dict[str, str], dict[str, str]]:
    found = _functions(before), _functions(after)
    if one_is_compiled(before, after):
        for functions in found:
            functions.pop(f"attribute {COMPILER_ATTRIBUTE}", None)
    return found


def _compare(
    part: str, before: Mapping[str, _Item], after: Mapping[str, _Item],
    text: Callable[[_Item], str],
) -> Iterator[Difference]:
    for name in (*before, *(name for name in after if name not in before)):
        old, new = before.get(name), after.get(name)
        if old != new:
            yield Difference(part=part, name=name, before="" if old is None else text(old),
                             after="" if new is None else text(new))


def _compare_operations(
    before: Mapping[str, Operation], after: Mapping[str, Operation]
) -> Iterator[Difference]:
    """Yields the operations that differ; of one that both have, the parts that differ."""
    for found in _compare("program", before, after, _operation_text):
        old, new = before.get(found.name), after.get(found.name)
        if old and new:
            was, now = _parts(old), _parts(new)
            gone, come = ([p for p in a if p not in b] for a, b in ((was, now), (now, was)))
            if gone or come:
                found = replace(found, before=", ".join(gone), after=", ".join(come))
        yield found


def _metadata(model: Model) -> dict[str, str]:
    """Returns what the description says, by the name of each thing that it says."""
    found = {"specification version": str(model.specification_version)}
    found |= _features("", model.description)
    for function in model.description.functions:
        found |= _features(f"{function.name}: ", function)
    metadata = model.description.metadata
    for field in ("shortDescription", "versionString", "author", "license"):
        if getattr(metadata, field):
            found[field] = getattr(metadata, field)
    found.update((f"userDefined {key}", text) for key, text in sorted(metadata.userDefined.items()))
    return found


def _features(prefix: str, features: Message) -> dict[str, str]:
    groups = {"input": features.input, "output": features.output, "state": features.state}
    return {
        f"{prefix}{group} {feature.name}": f"{feature_text(feature)}  {feature.shortDescription}"
        for group, found in groups.items() for feature in sorted(found, key=lambda f: f.name)
    }


def _functions(model: Model) -> dict[str, str]:
    """Returns the signature of each function, and the program's own attributes."""
    found = {
        f"function {name}": f"{function.opset} ({', '.join(sorted(_input_names(function)))}) -> "
                            f"({', '.join(function.block.outputs)})"
        for name, function in model.program.functions.items()
    }
    found.update((f"attribute {key}", _short(value.data))
                 for key, value in sorted(model.program.attributes.items()))
    return found


def _input_names(function: Function) -> Iterator[str]:
    return (item.name for item in function.inputs)


def _operations(model: Model) -> dict[str, Operation]:
    """Returns every operation without where its blobs lie, by function and name."""
    return {
        f"{name}: {operation.name}": moved(operation, lambda _: _NOWHERE)
        for name, _, block in blocks(model) for operation in block.operations
    }


def _operation_text(operation: Operation) -> str:
    values = ", ".join(_values(operation))
    return (f"{operation.type}({', '.join(_inputs(operation))}) {_outputs(operation)}"
            f"{f' [{values}]' if values else ''}")


def _parts(operation: Operation) -> list[str]:
    return [operation.type, *_inputs(operation), *_values(operation), _outputs(operation)]


def _inputs(operation: Operation) -> list[str]:
    return [
        f"{key}={', '.join(b if isinstance(b, str) else type_text(b.type) for b in bindings)}"
        for key, bindings in sorted(operation.inputs.items())
    ]


def _values(operation: Operation) -> list[str]:
    return [f"{key}={_short(value.data)}" for key, value in sorted(operation.attributes.items())
            if key != "name"]


def _outputs(operation: Operation) -> str:
    return f"-> {', '.join(type_text(out.type) for out in operation.outputs)}"


def _short(data: bytes | Blob | tuple) -> str:
    if isinstance(data, Blob):
        return "blob"
    if isinstance(data, bytes):
        return f"0x{data[:8].hex()}{'…' if len(data) > 8 else ''}"
    if isinstance(data, tuple):
        items = [_item_text(item) for item in data]
        return items[0] if len(items) == 1 else f"({', '.join(items)})"
    return str(data)


def _item_text(item: object) -> str:
    """Returns an item of a list or tuple, or a key and its value."""
    match item:
        case Value():
            return _short(item.data)
        case tuple():
            return ": ".join(map(_item_text, item))
    return str(item)


def _order(before: Model, after: Model) -> Iterator[Difference]:
    """Yields a difference if the operations that both have are in another order."""
    old, new = list(_operations(before)), list(_operations(after))
    old_common = [name for name in old if name in set(new)]
    new_common = [name for name in new if name in set(old)]
    for was, now in zip(old_common, new_common, strict=True):
        if was != now:
            yield Difference(part="program", name="order of operations", before=was, after=now)
            return


def _weights(model: Model) -> dict[str, str]:
    """Type and digest of each constant in a weight file."""
    return {
        f"{name}: {operation.name}.{argument}":
            f"{type_text(value.type)} {_digest(model, value.data)}"
        for name, _, block in blocks(model) for operation in walk(block)
        for argument, value in placed(operation) if isinstance(value.data, Blob)
    }


def _digest(model: Model, blob: Blob) -> str:
    return hashlib.blake2b(model.blob(blob), digest_size=8).hexdigest()
