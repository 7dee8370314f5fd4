"""The output of each command with `--json`, as types and as the JSON Schemas made of them.

A new key is added here, or to the dataclass that is printed.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from sdbuild.recipe.json_schema import DRAFT, Schema

Keys = dict[str, Any]
"""The keys of an object, with the type of each: a class, or the keys of an object in it."""

ERROR: Keys = {"type": str, "message": str, "hint": str}
"""The value of `error`, which every command may print instead."""

ARTIFACT: Keys = {
    "key": str, "step": str, "made_at": str, "host": str, "seconds": float, "peak_bytes": int,
    "size_bytes": int, "digest": str, "has_content": bool, "ingredients": Mapping[str, Any],
}
BUILD: Keys = {
    "bundle": str, "ran": [ARTIFACT], "reused": [ARTIFACT], "seconds": float, "warnings": [str],
}
VARIANT: Keys = {
    "name": str, "variables": Mapping[str, str], "status": int, "output": Mapping[str, Any],
}


OVER_VARIANTS = ("build", "check", "contract", "generate", "publish", "why")
"""The commands that `--matrix` runs for each variant."""


def outputs() -> dict[str, Keys]:
    """Returns the keys that each command prints beside `schema`, by its name."""
    from sdbuild.bundle.compatibility import Verdict
    from sdbuild.bundle.rules.rule import Violation
    from sdbuild.cli.doctor import Finding
    from sdbuild.publish.changes import Changed
    from sdbuild.reports.du import Usage
    from sdbuild.reports.gc import Garbage
    from sdbuild.reports.page.report import Report
    from sdbuild.reports.verify import Verified
    from sdbuild.reports.weight import Stop
    from sdbuild.reports.why import Reason, Standing

    steps = {"name": str, "summary": str, "needs": [str]}
    report = keys_of(Report, "pictures") | {"verdict": str}
    recipe = {"name": str, "summary": str, "family": str, "size": str, "source": [str],
              "file": str, "is_built_in": bool}
    return {
        "build": BUILD,
        "check": BUILD | {"report": str},
        "clean": {"lines": [str]},
        "contract": {"rules": int, "violations": [Violation], "hosts": [Verdict]},
        "diff": {"components": [Changed], "bytes": int, "whole_bytes": int},
        "doctor": {"findings": [Finding]},
        "du": keys_of(Usage),
        "export": {"path": str, "artifact": ARTIFACT},
        "find": {"artifacts": [ARTIFACT]},
        "forget": {"lines": [str]},
        "gc": keys_of(Garbage) | {"is_done": bool, "files": int},
        "generate": {"bundle": str, "images": [str]},
        "history": {"artifacts": [ARTIFACT | {"changed": [str]}]},
        "info": {"lines": [str]},
        "init": {"files": [{"path": str, "is_new": bool}]},
        "list": {"tasks": [steps]},
        "lock": {"recipe": str, "is_written": bool, "parts": Mapping[str, Mapping[str, str]],
                 "commits": Mapping[str, str]},
        "publish": {"repository": str, "folder": str, "page": str, "is_dry_run": bool,
                    "files": [{"path": str, "bytes": int, "sha256": str}],
                    "added": [str], "gone": [str]},
        "pull": {"bundle": str},
        "push": {"steps": [{"step": str, "state": str}]},
        "recipes": {"recipes": [recipe]},
        "report": {"page": str, "report": report, "variants": [VARIANT]},
        "refresh": {"moves": [{"place": str, "before": str, "after": str}], "is_locked": bool},
        "relink": {"bundle": str, "warnings": [str], "artifact": ARTIFACT},
        "reproduce": {"repository": str, "folder": str, "is_same": bool, "same": int,
                      "different": [{"path": str, "what": str}], "why": [str]},
        "sweep": {"variants": [VARIANT], "page": str, "report": report, "smallest": str},
        "verify": keys_of(Verified) | {"is_whole": bool},
        "weight": {"component": str, "tensor": str, "stops": [Stop]},
        "why": {"steps": [Reason], "places": [Standing], "recipe": str},
    }


def schema(name: str) -> Schema:
    """Returns the schema of what a command prints: what it found, or an error."""
    version: Schema = {"schema": {"const": 1}}
    forms = [_object(outputs()[name]), _object({"error": ERROR})]
    if name == "verify":
        forms.append(_object(_of_bundle()))
    if name in OVER_VARIANTS:
        forms.append(_object({"variants": [VARIANT]}))
    for each in forms:
        each["properties"] |= version
        each["required"] = ["schema", *each["required"]]
    return {"$schema": DRAFT, "title": f"sdbuild {name} --json", "anyOf": forms}


def _of_bundle() -> Keys:
    """Returns what `verify` prints of a finished bundle."""
    from sdbuild.reports.verify_bundle import VerifiedBundle

    return keys_of(VerifiedBundle) | {"is_whole": bool}


def keys_of(kind: Any, *without: str) -> Keys:
    """Returns the keys of a dataclass as JSON has it, without some."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind) if field.name not in without}


def _object(keys: Keys) -> Schema:
    """Returns every key is there; others may be added, which a reader has to expect."""
    return {"type": "object", "required": list(keys),
            "properties": {name: _schema(kind) for name, kind in keys.items()}}


_SCALARS: dict[Any, Schema] = {
    str: {"type": "string"}, int: {"type": "integer"}, float: {"type": "number"},
    bool: {"type": "boolean"}, type(None): {"type": "null"}, Any: {},
}


def _schema(kind: Any) -> Schema:
    if isinstance(kind, list):
        return {"type": "array", "items": _schema(kind[0])}
    if isinstance(kind, dict):
        return _object(kind)
    if kind in _SCALARS:
        return dict(_SCALARS[kind])
    if is_dataclass(kind):
        return _object(keys_of(kind))
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, Union):
        return {"anyOf": [_schema(each) for each in arguments]}
    if origin in (tuple, list, Sequence):
        return {"type": "array", "items": _schema(arguments[0])}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(arguments[1])}
    return _schema(kind.__supertype__)  # a new type, such as a digest
