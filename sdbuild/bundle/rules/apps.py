"""Rules of `metadata.json`, which apps read and Core ML does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sdbuild.bundle.bundle_reader import SD, Compiled, Opened, read_json
from sdbuild.bundle.rules.files import program
from sdbuild.bundle.rules.rule import APPS, ERROR, WARNING, Finding, rule

_SPLIT_KEY = "Ios16.einsum"
"""Source: MochiDiffusion at e686551, `SDModel.swift`; Guernika looks for the same key."""


@rule(ERROR, APPS, "does not list the model, or finds no size of its images.")
def metadata_can_be_read(bundle: Opened) -> Iterator[Finding]:
    """Every compiled model has a `metadata.json`: a list of one entry, which describes inputs in
    strings alone and counts operations in whole numbers."""
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
    """`metadata.json` of U-Nets and ControlNets counts `Ios16.einsum` if their attention is split,
    only then."""
    denoisers = [bundle.denoiser(name)[:1] for name in ("Unet", "ControlledUnet", "UnetRefiner")]
    unets = [model for models in denoisers for model in models]
    for model, entry in _entries(bundle):
        if model not in (*unets, *bundle.nets):
            continue
        attention = str(bundle.manifest.get("attention", ""))
        is_split = attention.startswith("split_einsum") if attention else _is_split(model)
        has_key = _SPLIT_KEY in entry["mlProgramOperationTypeHistogram"]
        if has_key != is_split:
            yield Finding(
                f"{model.file}/metadata.json", f"{'' if has_key else 'no '}{_SPLIT_KEY}",
                f"{'no ' if has_key else ''}{_SPLIT_KEY} for attention="
                f"{attention or 'split_einsum' if is_split else attention or 'original'}",
            )


@rule(WARNING, APPS, "does not offer the ControlNet for this bundle.", families=(SD,))
def controlnets_have_the_unets_attention(bundle: Opened) -> Iterator[Finding]:
    """`metadata.json` of each ControlNet has the same attention as the controlled U-Net's."""
    is_split = {model.file: _SPLIT_KEY in entry["mlProgramOperationTypeHistogram"]
            for model, entry in _entries(bundle)}
    for unet in bundle.denoiser("ControlledUnet")[:1]:
        for net in bundle.nets:
            own, wanted = is_split.get(net.file), is_split.get(unet.file)
            if None not in (own, wanted) and own != wanted:
                yield Finding(f"{net.file}/metadata.json", f"{'' if own else 'no '}{_SPLIT_KEY}",
                              f"the attention of {unet.file}")


def _is_split(model: Compiled) -> bool:
    """Whether a program has the operation by which split attention is recognized."""
    return b" einsum(" in program(model)


def _metadata(model: Compiled) -> Mapping[str, Any]:
    """Returns the first entry of a model's `metadata.json`.

    Raises:
        ValueError: there is none; the message is short.
    """
    found = read_json(model.path / "metadata.json")
    if not isinstance(found, list) or len(found) != 1 or not isinstance(found[0], dict):
        raise ValueError("another form")
    schema, counts = found[0].get("inputSchema"), found[0].get("mlProgramOperationTypeHistogram")
    if not isinstance(schema, list):
        raise ValueError("no inputSchema")
    if not all(isinstance(item, dict) and all(isinstance(value, str) for value in item.values())
               for item in schema):
        raise ValueError("an inputSchema of other values than strings")
    if not isinstance(counts, dict) or any(type(count) is not int for count in counts.values()):
        raise ValueError("no mlProgramOperationTypeHistogram of whole numbers")
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
    controlnets_have_the_unets_attention,
)
