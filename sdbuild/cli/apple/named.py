"""Schedule and tokenizer of the checkpoint that `--model-version` names, for finished models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sdbuild.base.errors import RecipeError, SourceError
from sdbuild.base.parsing import json_object
from sdbuild.checkpoints import open_checkpoint
from sdbuild.checkpoints.resources import SCHEDULER, TOKENIZERS, file_name
from sdbuild.checkpoints.schedule import check_schedule
from sdbuild.cli.apple.flags import Given
from sdbuild.cli.apple.names import place_of


def resources(flags: Given, say: Callable[[str], None]) -> Mapping[str, bytes]:
    """Returns the checkpoint's files other than weights; none if no checkpoint is named, or it
    cannot be read, which is reported."""
    if "model_version" not in flags.explicit:
        return {}
    try:
        return open_checkpoint([place_of(flags.model_version, "--model-version")], {}).resources()
    except (SourceError, RecipeError) as error:
        say(f"--model-version {flags.model_version}: not read, so its schedule and tokenizer are "
            f"assumed: {error.message}")
        return {}


def schedule(files: Mapping[str, bytes], version: str) -> Mapping[str, Any]:
    """Returns the config of the scheduler, empty if there is none.

    Raises:
        SourceError: it is not sound.
    """
    if SCHEDULER not in files:
        return {}
    config = json_object(files[SCHEDULER], SCHEDULER, SourceError, has_infinities=True)
    check_schedule(config, f"{version}: {SCHEDULER}", SourceError)
    return config


def tokenizer(files: Mapping[str, bytes], folder: Path) -> Path | None:
    """Writes the first tokenizer into a folder, and returns it; None if there is none.

    Raises:
        SourceError: it is not like CLIP's.
    """
    for each in TOKENIZERS:
        if each.vocabulary in files and each.merges in files:
            for path in (each.vocabulary, each.merges):
                (folder / file_name(path)).write_bytes(files[path])
            return folder
    return None
