"""Names that Apple's converter gives to packages and compiled models.

Source:
    apple/ml-stable-diffusion at e12202c, `torch2coreml.py`.
"""

from __future__ import annotations

import re

from sdbuild.base.errors import RecipeError
from sdbuild.base.parsing import shown
from sdbuild.checkpoints import check_place, expand_user, is_hub
from sdbuild.families import model_names
from sdbuild.mil.files.suffixes import COMPILED, PACKAGE

NAMES = {
    "transformer": ("MultiModalDiffusionTransformer", "mmdit"),
    "text_encoder_3": ("TextEncoderT5", "text_encoder_t5"),
} | model_names.NAMES
"""Names of each component in `Resources` and as a package; T5 has no package there."""

RESOURCES = "Resources"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)


def package(model: str, component: str, chunk: int = 0) -> str:
    """Returns the name of a component's package, or of one of its chunks."""
    part = NAMES[component][1] + (f"_chunk{chunk}" if chunk else "")
    return f"Stable_Diffusion_version_{model}_{part}{PACKAGE}".replace("/", "_")


def compiled(component: str, chunk: int = 0) -> str:
    """Returns the path of a component's compiled model, or of one of its chunks."""
    return f"{RESOURCES}/{NAMES[component][0]}{f'Chunk{chunk}' if chunk else ''}{COMPILED}"


def controlnet_package(net: str) -> str:
    """Returns the name of a ControlNet's package."""
    return f"ControlNet_{net.replace('/', '_')}{PACKAGE}"


def compiled_controlnet(net: str) -> str:
    """Returns the path of a compiled ControlNet, by which apps call it."""
    words = re.split("_|-", net.replace("/", "_"))
    return f"{RESOURCES}/controlnet/{''.join(word.title() for word in words)}{COMPILED}"


def place_of(version: str, flag: str) -> str:
    """Returns the place of a model that a flag names: a folder or file that is there, or a
    repository of the Hub.

    Raises:
        RecipeError: it is neither.
    """
    try:
        if is_hub(version):
            return check_place(version)
        if expand_user(version).exists():
            return version
    except (ValueError, OSError) as error:
        raise RecipeError(f"{flag} is {shown(version)}, expected {error}") from error
    if not _REPOSITORY.fullmatch(version):
        raise RecipeError(f"{flag} is {shown(version)}: there is no such folder or file, and it "
                          "is not owner/name, as a repository of the Hub is called",
                          hint="a relative path is looked up in the current folder")
    return f"hub:{version}"
