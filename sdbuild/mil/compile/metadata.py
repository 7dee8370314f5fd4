"""`metadata.json`: what a compiled model says of itself to people and tools.

Computed from the description (schemas) and the program (precisions, histogram). Core ML itself
does not need it; apps read shapes and the histogram from it. Keys are in alphabetical order here,
where Apple's compiler has a hash order.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from sdbuild.base.errors import InvalidProgram, UnsupportedFormat
from sdbuild.mil.compile.histogram import histogram_name
from sdbuild.mil.compile.precisions import compute_precision, storage_precision
from sdbuild.mil.compile.schemas import schema, state_schema
from sdbuild.mil.files.package import Model
from sdbuild.mil.ir.program import Function
from sdbuild.mil.ir.proto import Message

_AVAILABILITY = {
    6: ("12.0", "15.0", "8.0", "1.0"),
    7: ("13.0", "16.0", "9.0", "1.0"),
    8: ("14.0", "17.0", "10.0", "1.0"),
    9: ("15.0", "18.0", "11.0", "2.0"),
}
"""The first macOS, iOS, watchOS and visionOS that load each specification version."""


def describe(model: Model, class_name: str) -> list[dict]:
    """Returns the content of `metadata.json`; `class_name` is the stem of the model's file.

    Raises:
        InvalidProgram: description and program do not belong together.
        UnsupportedFormat: how something in the model is described is not known.
    """
    description = model.description
    top = _default_features(description)
    function = function_of(model, top)
    entry = {
        **_described_function(top, function),
        **_authorship(description.metadata),
        "availability": _availability(model.specification_version),
        "generatedClassName": _class_name(class_name),
        "isUpdatable": "0",
        "metadataOutputVersion": "3.0",
        "method": "predict",
        "modelParameters": [],
        "modelType": {"name": "MLModelType_mlProgram"},
        "specificationVersion": model.specification_version,
        "userDefinedMetadata": dict(description.metadata.userDefined),
    }
    storage = storage_precision(function)
    if storage:
        entry["storagePrecision"] = storage
    if description.functions:
        entry["defaultFunctionName"] = description.defaultFunctionName
        entry["functions"] = [
            {"name": features.name, **_described_function(features, function_of(model, features))}
            for features in description.functions
        ]
    return [entry]


def function_of(model: Model, features: Message) -> Function:
    """Returns the function that a `ModelDescription` or one of its `FunctionDescription`s speaks
    of.

    Raises:
        InvalidProgram: the program has no such function.
    """
    name = getattr(features, "name", "main")
    if name not in model.program.functions:
        found = ", ".join(model.program.functions) or "none"
        raise InvalidProgram(f"{model.source}: no function {name!r} in the program; found: {found}")
    return model.program.functions[name]


def _default_features(description: Message) -> Message:
    """Returns the description itself, or that of its default function."""
    if not description.functions:
        return description
    for features in description.functions:
        if features.name == description.defaultFunctionName:
            return features
    raise InvalidProgram(
        f"the default function {description.defaultFunctionName!r} is not described; "
        f"found: {', '.join(features.name for features in description.functions)}"
    )


def _described_function(features: Message, function: Function) -> dict:
    counts = Counter(
        histogram_name(operation.type, function.opset)
        for operation in function.block.operations if operation.type != "const"
    )
    return {
        "computePrecision": compute_precision(function),
        "inputSchema": [schema(feature) for feature in features.input],
        "mlProgramOperationTypeHistogram": dict(counts),
        "outputSchema": [schema(feature) for feature in features.output],
        "stateSchema": [state_schema(feature) for feature in features.state],
    }


def _authorship(metadata: Message) -> dict[str, str]:
    fields = {
        "shortDescription": metadata.shortDescription,
        "version": metadata.versionString,
        "author": metadata.author,
        "license": metadata.license,
    }
    return {key: text for key, text in fields.items() if text}


def _availability(specification_version: int) -> dict[str, str]:
    mac, phone, watch, vision = _AVAILABILITY[specification_version]
    return {"macOS": mac, "iOS": phone, "tvOS": phone, "macCatalyst": phone,
            "watchOS": watch, "visionOS": vision}


def _class_name(stem: str) -> str:
    if not stem or stem[0].isdigit():
        raise UnsupportedFormat(
            f"the class name of a model called {stem!r} is not known",
            hint="Give the model a name that begins with a letter.",
        )
    return re.sub(r"[^A-Za-z0-9_]", "_", stem)


# text


def format_metadata(content: object) -> str:
    """`metadata.json` text: sorted keys, and the spacing and escapes of Apple's compiler."""
    return "".join(_json(content, "\n"))


def _json(content: object, line: str) -> Iterator[str]:
    match content:
        case dict():
            items: list[Iterable[str]] = [
                [_string(key), " : ", *_json(value, f"{line}  ")]
                for key, value in sorted(content.items())
            ]
            yield from _container("{", items, "}", line)
        case list():
            yield from _container("[", [_json(item, f"{line}  ") for item in content], "]", line)
        case str():
            yield _string(content)
        case _:
            yield str(content)


def _container(left: str, items: list[Iterable[str]], right: str, line: str) -> Iterator[str]:
    yield left
    for position, item in enumerate(items):
        yield f",{line}  " if position else f"{line}  "
        yield from item
    yield f"{line}{right}" if items else f"\n{line}{right}"


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("/", r"\/")
