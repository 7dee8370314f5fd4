"""A recipe out of the flags of Apple's converter: what they ask for, as `name=value` words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from sdbuild.base.errors import RecipeError
from sdbuild.base.parsing import shown
from sdbuild.checkpoints import Checkpoint, open_checkpoint
from sdbuild.cli.apple.flags import Given
from sdbuild.cli.apple.names import place_of
from sdbuild.cli.apple.programs import PARTS
from sdbuild.families import FAMILIES, Family
from sdbuild.recipe.components import CONTROLLED, CONTROLNET
from sdbuild.recipe.recipe import Recipe, load

_PX = 8
"""Pixels of a side of a latent's cell, of every family that has these flags."""
_CONTROLNETS_ARE_FOR = "sd-1-5"
"""The recipe whose settings hold for ControlNets that are converted alone."""
_CELLS = 64
"""Rows and columns of its latents."""

_URLS = {
    "text_encoder_vocabulary_url": "tokenizer is laid out",
    "text_encoder_merges_url": "tokenizer is laid out",
    "text_encoder_t5_url": "T5 is converted",
    "text_encoder_t5_config_url": "tokenizer of T5 is laid out",
    "text_encoder_t5_data_url": "tokenizer of T5 is laid out",
}
"""Flags with files of other places, and what is done instead."""

_TOKENS = 77
_OTHERS = (
    ("black-forest-labs/", "FLUX"),
    ("stabilityai/stable-diffusion-3", "Stable Diffusion 3"),
)
"""Repositories whose family is known from their names, before anything is fetched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A conversion as flags ask for it.

    `components` are those to convert, by name; `words` what the recipe is loaded with, and `notes`
    what a user of Apple's package would not expect.
    """

    words: Mapping[str, str]
    components: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def recipe(self) -> Recipe:
        """Returns the recipe, of whole U-Nets."""
        return load(self.words)

    @property
    def has_checkpoint(self) -> bool:
        """Whether a checkpoint is read: converting ControlNets alone needs none."""
        return "source" in self.words


def refuse_unsupported(flags: Given) -> None:
    """Refuses families that are not built, before anything is read or fetched.

    Raises:
        RecipeError: the flags, or the name of a repository, say so.
    """
    known = ", ".join(family.title for family in FAMILIES.values())
    named = [(f"--{name.replace('_', '-')}", "Stable Diffusion 3")
             for name in ("sd3_version", "convert_mmdit", "include_t5") if flags.values[name]]
    named += [(f"--model-version {flags.model_version}", title) for start, title in _OTHERS
              if flags.model_version.startswith(start)]
    for flag, title in named:
        if not any(title in family.title for family in FAMILIES.values()):
            raise RecipeError(f"{flag}: {title} cannot be converted yet",
                              hint=f"what can be: {known}")


def wanted(flags: Given, asked: tuple[str, ...], facts: MutableMapping[str, Any]) -> Wanted:
    """Returns the conversion of components that flags ask for.

    Args:
        asked: the flags `convert_…` whose components are to be converted now.
        facts: a cache of facts about repositories, added to.

    Raises:
        RecipeError: flags that do not go together, or do not fit the checkpoint.
        SourceError: the checkpoint cannot be read.
    """
    has_size = None not in (flags.latent_h, flags.latent_w)
    if not asked and (has_size or "model_version" not in flags.explicit):
        return _of_controlnets(flags)
    place = place_of(flags.model_version, "--model-version")
    checkpoint = open_checkpoint([place], facts, flags.words.get("config", ""))
    words = _words(flags) | {"source": place} | _size(flags, checkpoint)
    family = load(words | {"attention": "original"}).family
    if not family.takes("attention"):
        words["attention"] = "original"
    _check_text(flags, checkpoint, family)
    components, notes = _components(flags, asked, family, checkpoint)
    words["components"] = ",".join(components or family.drawing)
    words |= _palettes(flags, family)
    notes = [*_family_notes(flags, family), *notes, *_tokenizer_notes(flags)]
    return Wanted(words=words, components=components, notes=tuple(notes))


def _of_controlnets(flags: Given) -> Wanted:
    """Returns the conversion of ControlNets alone, which need no checkpoint."""
    words = {"model": _CONTROLNETS_ARE_FOR, **_words(flags)}
    if (flags.latent_h, flags.latent_w) != (None, None):
        words["size"] = f"{(flags.latent_w or _CELLS) * _PX}x{(flags.latent_h or _CELLS) * _PX}"
    words |= _palettes(flags, FAMILIES["sd"])
    return Wanted(words=words, components=(), notes=tuple(_tokenizer_notes(flags)))


def _words(flags: Given) -> dict[str, str]:
    """Returns the words that flags say by themselves."""
    found = {
        "attention": flags.attention_implementation.lower(),
        "quant": str(flags.quantize_nbits or "none"),
        "chunk": "1",
        "target": flags.min_deployment_target,
        "batch": "1" if flags.unet_batch_one else "2",
    }
    if flags.custom_vae_version:
        found["vae"] = place_of(flags.custom_vae_version, "--custom-vae-version")
    if flags.refiner_version and flags.convert_unet:
        found["refiner_source"] = place_of(flags.refiner_version, "--refiner-version")
    if flags.convert_controlnet:
        found["controlnet"] = ",".join(place_of(net, "--convert-controlnet")
                                       for net in flags.convert_controlnet)
    return found | dict(flags.words)


def _size(flags: Given, checkpoint: Checkpoint) -> dict[str, str]:
    """Returns the size of images: of the latents that flags give, else of the checkpoint's
    `sample_size`; nothing where it has none."""
    own = dict(checkpoint.config("unet")).get("sample_size") if checkpoint.has("unet") else None
    rows, columns = own if isinstance(own, list) and len(own) == 2 else (own, own)
    rows = rows if flags.latent_h is None else flags.latent_h
    columns = columns if flags.latent_w is None else flags.latent_w
    if not isinstance(rows, int) or not isinstance(columns, int):
        return {}
    return {"size": f"{columns * _PX}x{rows * _PX}"}


def _components(
    flags: Given, asked: tuple[str, ...], family: Family, checkpoint: Checkpoint
) -> tuple[tuple[str, ...], list[str]]:
    """Returns the components to convert, and what is said of those that are left out."""
    known = {component.name: component for component in family.components}
    found: list[str] = []
    notes: list[str] = []
    for flag in asked:
        names = [name for name in PARTS[flag] if name in known]
        if flag == "convert_unet":
            names = [CONTROLLED] if flags.unet_support_controlnet else ["unet"]
            names += ["refiner"] if flags.refiner_version and "refiner" in known else []
        there = [name for name in names if name in known and (
            known[name].comes_with or not known[name].is_optional
            or checkpoint.has(known[name].folder))]
        if CONTROLLED in names and CONTROLLED not in known:
            raise RecipeError(f"--unet-support-controlnet: hosts run no ControlNets of "
                              f"{family.title}", hint="leave it out")
        if not there:
            notes.append(f"--{flag.replace('_', '-')}: left out, {checkpoint} has none")
        found += there
    return tuple(found), notes


def _palettes(flags: Given, family: Family) -> dict[str, str]:
    """Returns which components have palettes: those that Apple's converter gives some."""
    if flags.quantize_nbits is None or "palettize" in flags.words:
        return {}
    names = [c.name for c in family.components if c.is_palettized]
    return {"palettize": ",".join([*names, *([CONTROLNET] if flags.convert_controlnet else [])])}


def _check_text(flags: Given, checkpoint: Checkpoint, family: Family) -> None:
    """Refuses prompts of another length or width than the checkpoint's.

    Raises:
        RecipeError: a flag says so.
    """
    if flags.text_token_sequence_length not in (None, _TOKENS):
        raise RecipeError(f"--text-token-sequence-length {flags.text_token_sequence_length}: "
                          f"expected {_TOKENS}, which text encoders and hosts are made for",
                          hint="leave it out")
    if flags.text_encoder_hidden_size is None or not checkpoint.has("unet"):
        return
    own = checkpoint.config("unet").get("cross_attention_dim")
    if flags.text_encoder_hidden_size != own:
        raise RecipeError(f"--text-encoder-hidden-size {flags.text_encoder_hidden_size}: the U-Net "
                          f"of {checkpoint} takes {shown(own)}", hint="leave it out")


def _family_notes(flags: Given, family: Family) -> Iterator[str]:
    if family.name.startswith("sdxl") and not flags.xl_version:
        yield f"--xl-version was not given: the checkpoint says that it is of {family.title}"
    if flags.xl_version and not family.name.startswith("sdxl"):
        yield f"--xl-version does not fit: the checkpoint says that it is of {family.title}"
    if flags.sd3_version and family.name != "sd3":
        yield f"--sd3-version does not fit: the checkpoint says that it is of {family.title}"
    if flags.unet_support_controlnet and flags.unet_batch_one:
        yield ("--unet-batch-one: Apple's Swift package feeds a U-Net for ControlNets a batch of "
               "two, and cannot run one of batch one")
    if "attention_implementation" in flags.explicit and not family.takes("attention"):
        yield (f"--attention-implementation: {family.title} has one layout of attention, for CPU "
               "and GPU")
    if flags.refiner_version and "refiner" not in {c.name for c in family.components}:
        yield f"--refiner-version: left out, {family.title} has no refiner beside the U-Net"


def _tokenizer_notes(flags: Given) -> Iterator[str]:
    for name, what in _URLS.items():
        if name in flags.explicit:
            yield f"--{name.replace('_', '-')}: not fetched, the checkpoint's own {what}"
