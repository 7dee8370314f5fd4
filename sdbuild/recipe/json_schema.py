"""JSON Schemas of recipes and of `sdbuild.toml`, from the fields, for editors that complete TOML.

They are in the wheel: `sdbuild schema recipe` prints one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sdbuild.bundle.schedulers import SCHEDULERS
from sdbuild.families import FAMILIES
from sdbuild.recipe import values
from sdbuild.recipe.catalogue import ENTRY_FIELDS
from sdbuild.recipe.fields import (
    CHECK_FIELDS,
    DRAW_FIELDS,
    FLOOR_FIELD,
    MODEL_FIELD,
    RECIPE_FIELDS,
    REQUIRED,
    SETTING_FIELDS,
    Field,
)

DRAFT = "http://json-schema.org/draft-07/schema#"
"""The newest draft that taplo, and so most editors, can read."""

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_FILLED: Schema = {"type": "string", "pattern": r"\S"}
_COMPONENT: Schema = {"enum": sorted({c.name for f in FAMILIES.values() for c in f.components})}


_SIDE = "(6[4-9]|[7-9][0-9]|[1-9][0-9]{2,3})"
_SIZE = f"{_SIDE}(x{_SIDE})?"
_PIXELS: Schema = {"type": "integer", "minimum": 64, "maximum": 2048, "multipleOf": 8}


def _several(one: Schema) -> Schema:
    """Returns a list, or text with commas between them."""
    return {"anyOf": [_FILLED, {"type": "array", "items": one, "minItems": 1}]}


_OF_PARSERS: dict[Any, Schema] = {
    values.text: _TEXT,
    values.named_path: _FILLED, values.path: _FILLED, values.url: _FILLED,
    values.places: _several(_FILLED), values.loras: _several(_FILLED),
    values.mixed: _several({"type": "string", "pattern": r"^[a-z0-9_]+\..+:[123468]$"}),
    values.embeddings: _several(_FILLED),
    values.names: _several(_COMPONENT),
    values.optional_names: {"anyOf": [_TEXT, {"type": "array", "items": _COMPONENT}]},
    values.sizes: {"anyOf": [
        _PIXELS, {"type": "string", "pattern": f"^{_SIZE}(,{_SIZE})*$"},
        {"type": "array", "minItems": 1, "maxItems": values.MOST_SIZES,
         "items": {"anyOf": [_PIXELS, {"type": "string", "pattern": f"^{_SIZE}$"}]}}]},
    values.nbits: {"anyOf": [
        {"enum": [int(word) if word.isdigit() else word for word in values.QUANTS]},
        {"type": "number", "minimum": 1, "maximum": 8, "not": {"enum": [5, 7]}},
        {"type": "string", "pattern": r"^[1-7]\.[0-9]+$"}]},  # "5.0": JSON has one 5
    values.activation_bits: {"enum": [
        int(word) if word.isdigit() else word for word in values.ACTIVATIONS]},
    values.attention: {"enum": [*values.ATTENTIONS, *map(str.upper, values.ATTENTIONS)]},
    values.scheduler: {"anyOf": [{"enum": list(SCHEDULERS)},
                                 {"type": "string", "pattern": "[A-Z]"}]},
    values.licence: {"type": "string", "pattern": r"^\s*[A-Za-z0-9][A-Za-z0-9.+-]{0,63}\s*$"},
    values.yes: {"anyOf": [{"type": "boolean"}, {"enum": ["yes", "no"]}]},
    values.prompts: {"type": "array", "items": _FILLED, "minItems": 1, "maxItems": 16},
    values.decibels: {"anyOf": [{"type": "number", "minimum": 0, "maximum": 120},
                                {"type": "string", "pattern": "^[0-9.]+ *[dD][bB]$"}]},
    values.memory: {"anyOf": [{"type": "integer", "minimum": 100_000_000},
                              {"type": "string", "pattern": r"^[0-9.]+\s*[A-Za-z]*$"}]},
    values.picture: {"type": "string", "pattern": r"\.[A-Za-z]{3,4}$"},
}
"""Schemas of the TOML values that each parser accepts, without spellings that only the command line
needs, such as "6" for 6."""


def recipe() -> Schema:
    """Returns the schema of a recipe."""
    digests = {"type": "object", "additionalProperties": _FILLED}
    floor = _table((FLOOR_FIELD,))["properties"]["floor"]
    floors = {"type": "object", "required": ["reason"], "additionalProperties": False,
              "properties": {"reason": _FILLED, **dict.fromkeys(values.FLOORS, floor)}}
    found = _table(RECIPE_FIELDS)
    found["required"] = ["family", *found["required"]]
    found["properties"] = {
        "summary": _TEXT | {"description": "what it is, for `sdbuild recipes`"},
        "family": {"enum": list(FAMILIES), "description": "the family of models"},
        **found["properties"],
        "draw": _table(DRAW_FIELDS),
        "check": _table(CHECK_FIELDS) | {"dependencies": {"accepts": ["reason"],
                                                          "reason": ["accepts"]}},
        "floors": {"type": "object", "propertyNames": _COMPONENT, "additionalProperties": floors},
        "lock": {"type": "object", "additionalProperties": digests},
        "matrix": _matrix(),
    }
    return {"$schema": DRAFT, "title": "A recipe of sdbuild",
            "definitions": _values(RECIPE_FIELDS), **found}


def catalogue() -> Schema:
    """Returns the schema of a catalogue."""
    entry = _table(ENTRY_FIELDS)
    entry["properties"]["matrix"] = _matrix()
    entry |= {"required": [], "anyOf": [{"required": ["model"]}, {"required": ["source"]}]}
    return {"$schema": DRAFT, "title": "A catalogue of sdbuild", "type": "object",
            "additionalProperties": False, "required": ["recipe"],
            "definitions": _values(RECIPE_FIELDS), "properties": {
                "summary": _TEXT, "matrix": _matrix(),
                "recipe": {"type": "array", "minItems": 1, "items": entry}}}


def _matrix() -> Schema:
    """Returns the schema of a matrix: for each field a list of its values, which are defined at the
    root of the schema."""
    values_of = {field.name: {"$ref": f"#/definitions/{field.name}"} for field in RECIPE_FIELDS}
    lists = {name: {"type": "array", "items": value, "minItems": 1, "uniqueItems": True}
             for name, value in values_of.items()}
    rows = {"type": "array", "items": {"type": "object", "minProperties": 1,
                                       "additionalProperties": False, "properties": values_of}}
    return {"type": "object", "minProperties": 1, "additionalProperties": False,
            "properties": {**lists, "exclude": rows, "include": rows}}


def project() -> Schema:
    """Returns the schema of `sdbuild.toml`."""
    return {"$schema": DRAFT, "title": "sdbuild.toml", **_table((MODEL_FIELD, *SETTING_FIELDS)),
            "required": []}


def _table(fields: Iterable[Field]) -> Schema:
    fields = list(fields)
    return {
        "type": "object", "additionalProperties": False,
        "required": [field.name for field in fields if field.default is REQUIRED],
        "properties": _values(fields),
    }


def _values(fields: Iterable[Field]) -> Schema:
    return {field.name: _value(field) for field in fields}


def _value(field: Field) -> Schema:
    """Returns the schema of a field's value, with its meaning and default."""
    found: Schema = {"description": field.meaning}
    if field.default is not REQUIRED and field.default is not None:
        found["default"] = field.default
    if isinstance(field.parse, values.Choice):
        return found | {"enum": list(field.parse.allowed)}
    if isinstance(field.parse, values.integer):
        return found | _between("integer", field.parse)
    if isinstance(field.parse, values.number):
        return found | _between("number", field.parse)
    return found | _OF_PARSERS[field.parse]


def _between(kind: str, bounds: values.integer | values.number) -> Schema:
    return {"type": kind, "minimum": bounds.least, "maximum": bounds.most}
