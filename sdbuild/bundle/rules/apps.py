"""Rules of `metadata.json`, which apps read and Core ML does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sdbuild.bundle.bundle_reader import Compiled, Opened, read_json
from sdbuild.bundle.rules.rule import APPS, ERROR, Finding, rule

_SPLIT_KEY = "Ios16.einsum"
"""Source: MochiDiffusion at e686551, `SDModel.swift`; Guernika looks for the same key."""


@rule(ERROR, APPS, "does not list the model, or finds no size of its images.")
def metadata_can_be_read(bundle: Opened) -> Iterator[Finding]:
    """Every compiled model has a `metadata.json`: a list of one entry with its schemas."""
    for model in bundle.models.values():
        try:
            _metadata(model)
        except ValueError as error:
            yield Finding(f"{model.file}/metadata.json", str(error), "a list of one entry")


@rule(ERROR, APPS, "shows and matches sizes that the model does not have.")
def metadata_shows_the_true_shapes(bundle: Opened) -> Iterator[Finding]:
    """The input shapes in `metadata.json` are those that the model declares."""
    for model, entry in _entries(bundle):
        shown = {str(item.get("name")): item.get("shape") for item in _schema(entry)}
        declared = {name: str(list(f.shape)) for name, f in model.inputs.items() if f.shape}
        for name, shape in declared.items():
            if shown.get(name) != shape:
                yield Finding(f"{model.file}/metadata.json", f"{name} {shown.get(name)}", shape)


@rule(ERROR, APPS, "runs the U-Net on the wrong compute units: predictions fail or never load.")
def histogram_tells_the_attention(bundle: Opened) -> Iterator[Finding]:
    """The U-Net's `metadata.json` counts `Ios16.einsum` if its attention is split, only then."""
    attention = str(bundle.manifest.get("attention", ""))
    for model, entry in _entries(bundle):
        if not attention or model not in bundle.unet[:1]:
            continue
        counts = entry.get("mlProgramOperationTypeHistogram")
        has_key = isinstance(counts, dict) and _SPLIT_KEY in counts
        if has_key != attention.startswith("split_einsum"):
            yield Finding(
                f"{model.file}/metadata.json", f"{'' if has_key else 'no '}{_SPLIT_KEY}",
                f"{'no ' if has_key else ''}{_SPLIT_KEY} for attention={attention}",
            )


def _metadata(model: Compiled) -> Mapping[str, Any]:
    """The first entry of a model's `metadata.json`.

    Raises:
        ValueError: there is none; the message is short.
    """
    found = read_json(model.path / "metadata.json")
    if not isinstance(found, list) or len(found) != 1 or not isinstance(found[0], dict):
        raise ValueError("another form")
    if not isinstance(found[0].get("inputSchema"), list):
        raise ValueError("no inputSchema")
    return found[0]


def _entries(bundle: Opened) -> Iterator[tuple[Compiled, Mapping[str, Any]]]:
    for model in bundle.each(*bundle.models):
        try:
            yield model, _metadata(model)
        except ValueError:
            continue


def _schema(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [item for item in entry["inputSchema"] if isinstance(item, dict)]


APP_RULES = (
    metadata_can_be_read,
    metadata_shows_the_true_shapes,
    histogram_tells_the_attention,
)
