"""Model cards: what a repository says of each variant, and what is read back from it.

A variant has a section of its own between two comments, with its recipe and the SHA-256 of every
file; the rest of a card is its owner's, and stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sdbuild.base.errors import BundleError
from sdbuild.base.parsing import shown
from sdbuild.base.units import counted, size
from sdbuild.bundle.compatibility import LOADERS
from sdbuild.bundle.manifest import OWN_BITS
from sdbuild.checkpoints import is_hub
from sdbuild.publish.names import Variant

CARD = "README.md"
_SECTION = re.compile(r"<!-- sdbuild variant ([\w./-]{1,200}) (\w{1,16}) -->\n(.*?)"
                      r"<!-- end of variant -->\n?", re.DOTALL)
_RECIPE = re.compile(r"^```toml\n# ([\w.-]{1,100})\.toml\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SUM = re.compile(r"^([0-9a-f]{64}) +(\d{1,15})  (\S.*)$", re.MULTILINE)
_HEADER = re.compile(r"\A---\n(.*?)^---\n", re.DOTALL | re.MULTILINE)
_LARGEST_CHARACTERS = 1 << 21
_UNITS = {"original": "CPU and GPU"}
_SYSTEMS = {"iOS16": "iOS 16.2, macOS 13.1", "iOS17": "iOS 17, macOS 14",
            "iOS18": "iOS 18, macOS 15"}


@dataclass(frozen=True, slots=True)
class Sum:
    """A file as a card lists it: its SHA-256 and its size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A variant as a card describes it: its recipe, by name, and its files, by path."""

    folder: str
    bits: str
    recipe_name: str
    recipe: str
    files: Mapping[str, Sum]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The content of a section before it is written.

    `parity` are PSNRs in dB by component and output; `pictures` paths in the repository, with what
    each was drawn from.
    """

    variant: Variant
    folder: str
    archive: str
    manifest: Mapping[str, Any]
    recipe_name: str
    recipe: str
    files: Mapping[str, Sum]
    parity: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)


def sections(card: str) -> dict[str, Section]:
    """Returns the variants that a card describes, by folder.

    Raises:
        BundleError: a section is not as sdbuild writes it.
    """
    if len(card) > _LARGEST_CHARACTERS:
        raise BundleError(f"{CARD}: {len(card)} characters, more than any card has")
    found = {}
    for folder, bits, text in _SECTION.findall(card):
        recipe = _RECIPE.search(text)
        files = {path: Sum(digest, int(length)) for digest, length, path in _SUM.findall(text)}
        if recipe is None or not files or not all(map(_is_inside, (folder, *files))):
            raise BundleError(f"{CARD}: the section of {shown(folder)} has no recipe and files as "
                              "sdbuild writes them", hint="sdbuild publish writes it again")
        found[folder] = Section(folder=folder, bits=bits, recipe_name=recipe[1], recipe=recipe[2],
                                files=files)
    return found


def _is_inside(path: str) -> bool:
    return not path.startswith("/") and all(part not in ("", ".", "..") for part in path.split("/"))


def with_section(card: str, facts: Facts, header: Mapping[str, Any]) -> str:
    """Returns the card with the section of a variant, in place of the one that it had, and with
    what it lacks of the header."""
    card = card.removeprefix("\ufeff").replace("\r\n", "\n")  # as the Hub reads it
    section = "\n".join(_section(facts)) + "\n"
    found = next((m for m in _SECTION.finditer(card) if m[1] == facts.folder), None)
    if found is not None:
        card = card[:found.start()] + section + card[found.end():]
    else:
        card = f"{card.rstrip()}\n\n{section}" if card.strip() else section
    return _with_header(card, header)


def introduction(repository: str, manifest: Mapping[str, Any], base: Sequence[str]) -> str:
    """Returns how a new card begins."""
    places = ", ".join(f"[{place}](https://huggingface.co/{place})" for place in base)
    made = f"{places} for Core ML" if places else f"{manifest['name']} for Core ML"
    return (f"# {repository}\n\n{made}, converted by sdbuild: compiled models for Apple's Swift "
            "package and the apps around it.\n")


def header_of(manifest: Mapping[str, Any], base: Sequence[str]) -> dict[str, Any]:
    """Returns the fields without which the Hub shows no Core ML label, no licence and no model that
    this one was made from."""
    kind = "stable-diffusion-xl" if str(manifest["family"]).startswith("sdxl") \
        else "stable-diffusion"
    return {"library_name": "coreml", "pipeline_tag": "text-to-image",
            "license": manifest["licence"], **({"base_model": list(base)} if base else {}),
            "tags": ["coreml", "core-ml", kind, "text-to-image"]}


def base_models(places: Sequence[str]) -> list[str]:
    """Returns the repositories among the places of a checkpoint."""
    return [place.partition(":")[2].partition("@")[0] for place in places if is_hub(place)]


def _with_header(card: str, header: Mapping[str, Any]) -> str:
    found = _HEADER.match(card)
    lines = found[1].splitlines() if found else []
    known = {line.partition(":")[0] for line in lines if re.match(r"\w+:", line)}
    for name, value in header.items():
        if name in known:
            continue
        lines += [f"{name}:", *(f"- {each}" for each in value)] if isinstance(value, list) \
            else [f"{name}: {value}"]
    body = card[found.end():] if found else f"\n{card}"
    return "\n".join(["---", *lines, "---"]) + f"\n{body}"


def _section(facts: Facts) -> Iterator[str]:
    yield f"<!-- sdbuild variant {facts.folder} {facts.variant.bits_word} -->"
    yield f"## {facts.folder}"
    yield ""
    yield from _table(("", ""), _traits(facts))
    if facts.pictures:
        yield ""
        yield " ".join(f"![{_cell(text)}]({path})" for path, text in facts.pictures.items())
    yield ""
    yield "### Where it runs"
    yield ""
    yield from _table(("host", "", "", "put it"), _hosts(facts.manifest))
    if facts.parity:
        yield ""
        yield "### Against the original"
        yield ""
        yield from _table(("component", "output", "PSNR"), (
            (name, output, f"{psnr:.1f} dB") for name, outputs in facts.parity.items()
            for output, psnr in outputs.items()))
    yield from _origin(facts)
    yield "<!-- end of variant -->"


def _traits(facts: Facts) -> Iterator[tuple[str, str]]:
    manifest, variant = facts.manifest, facts.variant
    models = [name for entry in manifest["components"].values() for name in entry["models"]]
    total = sum(each.size for path, each in facts.files.items()
                if path.startswith(f"{facts.folder}/"))
    draw = manifest["draw"]
    yield "download", f"`{facts.archive}`, or the folder `{facts.folder}`"
    yield "compute units", _UNITS.get(variant.attention, "CPU and Neural Engine")
    yield "images", f"{variant.width_px} × {variant.height_px} pixels"
    yield "weights", OWN_BITS if manifest.get("bits") else \
        f"{variant.nbits} bits" if variant.nbits else "fp16"
    if variant.activations:
        yield "activations", f"{variant.activations} bits, for A17 Pro, M4 and later"
    yield "bytes", size(total)
    yield "needs", _SYSTEMS.get(manifest["target"], manifest["target"])
    yield "U-Net", "in two chunks" if "UnetChunk1.mlmodelc" in models else "whole"
    yield "image to image", "yes" if "VAEEncoder.mlmodelc" in models else "no"
    yield "ControlNet", "yes" if variant.has_controlnets else "no"
    yield "predicts", str(manifest["prediction_type"])
    yield "latents", f"scaled by {manifest['scale_factor']}"
    yield "settings", (f"{draw.get('scheduler', 'dpm')}, {draw.get('steps', 25)} steps, "
                              f"guidance {draw.get('guidance', 7.5)}")
    for words in manifest.get("words", ()):
        yield "in prompts", f"`{' '.join(words)}`, " + (
            "learned words, all of them in this order" if len(words) > 1 else "a learned word")
    yield "licence", str(manifest["licence"])


def _hosts(manifest: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    places = {loader.name: loader.place for loader in LOADERS}
    for name, verdict in manifest.get("hosts", {}).items():
        yield (name, verdict["runs"], "; ".join(verdict["reasons"]),
               f"`{places[name]}`" if places.get(name) else "")


def _origin(facts: Facts) -> Iterator[str]:
    yield ""
    yield "### Made again"
    yield ""
    yield "`sdbuild reproduce` builds it from this recipe and compares every file."
    yield ""
    yield "```toml"
    yield f"# {facts.recipe_name}.toml"
    yield facts.recipe.rstrip()
    yield "```"
    yield ""
    sources = [(step["step"].partition(":")[2], path, digest)
               for step in facts.manifest["made_from"] if step["step"].startswith("download:")
               for path, digest in step.get("source", {}).items()]
    if sources:
        yield f"<details><summary>{counted(len(sources), 'file')} of the checkpoint</summary>"
        yield ""
        yield from _table(("part", "file", "digest"), sources)
        yield ""
        yield "</details>"
        yield ""
    yield f"<details><summary>SHA-256 of {counted(len(facts.files), 'file')}</summary>"
    yield ""
    yield "```text"
    for path, each in sorted(facts.files.items()):
        yield f"{each.sha256} {each.size:>11}  {path}"
    yield "```"
    yield ""
    yield "</details>"


def _table(heads: Sequence[str], rows: Any) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"


def _cell(text: object) -> str:
    """Returns a text that stays in its cell, and is no markup."""
    return re.sub(r"[\[\]<>|]", lambda found: f"\\{found[0]}", " ".join(str(text).split()))
