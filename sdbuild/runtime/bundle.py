"""A finished bundle: a folder that describes itself in `manifest.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbuild.errors import BundleError

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What a host needs to know of a bundle.

    `models` maps each component to its compiled models, the chunks in order. `scheduler` is
    diffusers' config of the checkpoint's own, whose `prediction_type` may be another than the
    bundle's; `defaults` are the settings that the bundle draws best with.
    """

    folder: Path
    name: str
    family: str
    width_px: int
    height_px: int
    attention: str
    scale_factor: float
    pad_token: str
    prediction_type: str
    scheduler: Mapping[str, Any]
    models: Mapping[str, tuple[Path, ...]]
    defaults: Mapping[str, Any]
    description: str


def load_bundle(folder: Path) -> Bundle:
    """The bundle in a folder.

    Raises:
        BundleError: there is none, or a file of it is missing or has another size; says which.
    """
    manifest = _manifest(folder)
    try:
        _check_files(folder, manifest["files"])
        return Bundle(
            folder=folder,
            name=manifest["name"],
            family=manifest["family"],
            width_px=manifest["width_px"],
            height_px=manifest["height_px"],
            attention=manifest["attention"],
            scale_factor=manifest["scale_factor"],
            pad_token=manifest["pad_token"],
            prediction_type=manifest["prediction_type"],
            scheduler=manifest["scheduler"],
            models={
                name: tuple(folder / model for model in entry["models"])
                for name, entry in manifest["components"].items()
            },
            defaults=manifest["draw"],
            description=_describe(manifest),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(
            f"{folder / 'manifest.json'}: not the manifest of a bundle: {error!r}"
        ) from error


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise BundleError(
            f"{folder}: no manifest.json, expected the folder of a finished bundle",
            hint="doit build puts bundles below bundles/",
        ) from None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}",
                          hint="see that it can be read, then try again") from error
    except ValueError as error:
        raise BundleError(f"{path}: cannot be read: {error}",
                          hint="build the bundle again") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise BundleError(f"{path}: not a manifest of schema {SCHEMA}")
    return found


def _check_files(folder: Path, files: Mapping[str, Any]) -> None:
    for name, (size, _) in files.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(
                f"{folder}: {name} is missing", hint="build the bundle again", file=name
            )
        if path.stat().st_size != size:
            raise BundleError(
                f"{path}: {path.stat().st_size} bytes, expected {size}",
                hint="build the bundle again", file=name,
            )


def _describe(manifest: Mapping[str, Any]) -> str:
    """The bundle in a few words, for the pictures that it draws."""
    bits = {entry["nbits"] for entry in manifest["components"].values()} - {None}
    weights = f"{max(bits)} bit" if bits else "fp16"
    return f"{manifest['name']}, {weights}, {manifest['attention']}, {manifest['target']}"
