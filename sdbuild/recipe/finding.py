"""Selects the recipe of a checkpoint that is given without one: that of its own architecture.

`PUBLISHED` is the one table of published models. The configs of a checkpoint, or the shapes of its
tensors, say which of them it is a fine-tune of. Where they leave open what decides, such as noise
or velocity, the user is asked for the word that says it, before any work starts.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from sdbuild.base.errors import RecipeError, SourceError
from sdbuild.base.parsing import json_object, shown
from sdbuild.checkpoints import Checkpoint, is_hub, open_checkpoint
from sdbuild.checkpoints.defaults import DEFAULTS
from sdbuild.checkpoints.networks import check_class, published_family
from sdbuild.checkpoints.packages import Packages
from sdbuild.checkpoints.resources import SCHEDULER
from sdbuild.checkpoints.schedule import FLOW
from sdbuild.checkpoints.schedule import predicts as predicted_by
from sdbuild.families import FAMILIES
from sdbuild.recipe.fields import PREDICTION_TYPES
from sdbuild.recipe.finished import fields_of

Size = tuple[int, int]
"""Width and height in pixels."""

_SIDES_PX = range(64, 2049, 8)
_MOST_LEVELS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published model: its recipe, and what its fine-tunes have in common with it.

    `channels` are those of the U-Net's blocks, `kind` what it does beside drawing what a prompt
    says (`KINDS`). `predicts` is empty where the recipe is the same whatever the U-Net predicts. It
    was trained at `side_px` × `side_px`.
    """

    recipe: str
    family: str = "sd"
    kind: str = ""
    prompt_width: int
    channels: tuple[int, ...]
    predicts: str
    side_px: int


KINDS = {"inpainting": "it takes a mask", "distilled": "it takes its guidance as an input",
         "twice": "its first blocks look at the picture twice",
         "normalized": "its queries are normalized"}
"""Predictions as a U-Net's config names them, and as messages do."""

_WIDTHS = (320, 640, 1280, 1280)

PUBLISHED = (
    Published(recipe="sd-1-5", prompt_width=768, channels=_WIDTHS,
              predicts="", side_px=512),
    Published(recipe="sd-2-1-base", prompt_width=1024, channels=_WIDTHS,
              predicts="epsilon", side_px=512),
    Published(recipe="sd-2-1", prompt_width=1024, channels=_WIDTHS,
              predicts="v_prediction", side_px=768),
    Published(recipe="sd-1-5-inpaint", kind="inpainting", prompt_width=768, channels=_WIDTHS,
              predicts="", side_px=512),
    Published(recipe="sd-2-inpaint", kind="inpainting", prompt_width=1024, channels=_WIDTHS,
              predicts="", side_px=512),
    Published(recipe="sd-1-5-lcm", kind="distilled", prompt_width=768, channels=_WIDTHS,
              predicts="", side_px=512),
    Published(recipe="sdxl-base", family="sdxl", prompt_width=2048, channels=(320, 640, 1280),
              predicts="", side_px=1024),
    Published(recipe="sdxl-inpaint", family="sdxl", kind="inpainting", prompt_width=2048,
              channels=(320, 640, 1280), predicts="", side_px=1024),
    Published(recipe="sdxl-refiner", family="sdxl-refiner", prompt_width=1280,
              channels=(384, 768, 1536, 1536), predicts="", side_px=1024),
    Published(recipe="sd-3-medium", family="sd3", prompt_width=4096, channels=(1536,), predicts="",
              side_px=1024),
    Published(recipe="sd-3-5-medium", family="sd3", kind="twice", prompt_width=4096,
              channels=(1536,), predicts="", side_px=1024),
    Published(recipe="sd-3-5-large", family="sd3", kind="normalized", prompt_width=4096,
              channels=(2432,), predicts="", side_px=1024),
)
"""A new model is one entry here, and its recipe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The recipe of a checkpoint.

    `model` is empty if no published model has its architecture; the defaults of its `family` hold
    then. `size` is in pixels, None where the recipe's holds. `lacks` names the folders of
    components that the checkpoint comes without and a bundle can do without. `fields` are all those
    that finished packages have by themselves.
    """

    model: str
    family: str
    size: Size | None
    lacks: frozenset[str]
    because: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Traits:
    """Properties that a checkpoint declares; `predicts` and `size` are None where it does not."""

    family: str
    kind: str
    prompt_width: Any
    channels: Any
    predicts: str | None
    size: Sequence[int] | None
    lacks: Sequence[str]

    def __str__(self) -> str:
        channels = self.channels if isinstance(self.channels, list) else [self.channels]
        blocks = ", ".join(map(shown, channels[:_MOST_LEVELS]))
        more = f", {KINDS[self.kind]}" if self.kind else ""
        return f"prompts {shown(self.prompt_width)} wide, blocks of {blocks} channels{more}"

    def is_of(self, model: Published) -> bool:
        """Whether the model has this architecture."""
        own = (self.family, self.kind, self.prompt_width, self.channels)
        return own == (model.family, model.kind, model.prompt_width, [*model.channels])


def find_recipe(
    places: Sequence[str], config: str, facts: MutableMapping[str, Any], *,
    prediction_type: str | None, size: Size | None, attention: str | None = None,
) -> Found:
    """Returns the recipe for the checkpoint at the first of the places that has one.

    Args:
        config: a folder that says what a single file does not, or empty.
        facts: a cache of facts about repositories, added to.
        prediction_type: the user's word for what the U-Net predicts.
        size: the user's word for the pixels of a picture.
        attention: the user's word for its layout, of which finished packages may have several.

    Raises:
        SourceError: no place has it, or it cannot be read.
        RecipeError: it does not say what decides; the hint names the words that do.
    """
    try:
        checkpoint = open_checkpoint(places, facts, config)
        if isinstance(checkpoint, Packages):
            return _finished(checkpoint, facts, attention)
        traits = _known(checkpoint, facts)
    except OSError as error:
        raise SourceError(f"{error.filename or ', '.join(places)}: {error.strerror or error}",
                          hint="see that it can be read, then try again") from error
    models = [model for model in PUBLISHED if traits.is_of(model)]
    predicts = prediction_type or traits.predicts
    if not models:
        return _unpublished(checkpoint, traits, predicts, size)
    model = next((m for m in models if m.predicts in ("", predicts)), None)
    if model is None:
        raise _undecided(checkpoint, traits.predicts, models)
    if size is None and traits.size not in (None, [model.side_px] * 2):
        raise _two_sizes(checkpoint, traits.size, model)
    also = f", {predicts}" if model.predicts else ""
    return Found(
        model=model.recipe, family=model.family, size=None, lacks=frozenset(traits.lacks),
        because=f"{model.recipe}, the published model of this architecture: {traits}{also}; "
                "model=NAME selects another",
    )


def _unpublished(
    checkpoint: Checkpoint, traits: _Traits, predicts: str | None, size: Size | None
) -> Found:
    """Returns the defaults of the family, for an architecture that no published model has."""
    if predicts not in (*PREDICTION_TYPES, FLOW):
        raise _undecided(checkpoint, traits.predicts, ())
    found = size or (tuple(traits.size) if traits.size else None)
    if found is None:
        raise RecipeError(
            f"{checkpoint}: no published model has its architecture ({traits}), and its image "
            "size is not known", hint="size=512, or what it was trained at",
        )
    why = "" if size else f" at {found[0]}x{found[1]}, the sample_size of its config"
    return Found(
        model="", family=traits.family, size=(found[0], found[1]), lacks=frozenset(traits.lacks),
        because=f"defaults{why}: no published model has this architecture ({traits}); model=NAME "
                "selects a recipe",
    )


def _finished(
    packages: Packages, facts: MutableMapping[str, Any], attention: str | None
) -> Found:
    """Returns what finished packages are; those of a commit of the Hub are remembered."""
    key = f"{packages.place}/packages/{attention or ''}"
    if not is_hub(packages.place) or not isinstance(facts.get(key), dict):
        table = fields_of(packages, attention)
        if packages.place in facts:
            facts[key] = table
    else:
        table = facts[key]
    own = {name: value for name, value in table.items() if name != "family"}
    said = ", ".join(f"{name}={','.join(value) if isinstance(value, list) else value}"
                     for name, value in own.items())
    return Found(model="", family=table["family"], size=None, lacks=frozenset(), fields=own,
                 because=f"finished packages, with {said}")


def _undecided(
    checkpoint: Checkpoint, said: str | None, models: Sequence[Published]
) -> RecipeError:
    what = "does not say" if said is None else f"says {shown(said)} for"
    hint = ", or ".join(
        f"prediction_type={model.predicts} size={model.side_px} if it was made from {model.recipe}"
        for model in models
    )
    return RecipeError(
        f"{checkpoint}: it {what} what its U-Net predicts, expected noise (epsilon) or velocity "
        "(v_prediction): a wrong guess generates noise",
        hint=hint or f"prediction_type={' or prediction_type='.join(PREDICTION_TYPES)}",
    )


def _two_sizes(
    checkpoint: Checkpoint, said: Sequence[int] | None, model: Published
) -> RecipeError:
    """Converters often wrote a wrong `sample_size`, and fine-tunes of another size are rare."""
    size = "x".join(map(str, said or ()))
    return RecipeError(
        f"{checkpoint}: the sample_size of its U-Net's config makes images of {size}, but it is "
        f"like {model.recipe}, which was trained at {model.side_px}x{model.side_px}",
        hint=f"size={model.side_px} or size={size}, whichever it was trained at",
    )


def _known(checkpoint: Checkpoint, facts: MutableMapping[str, Any]) -> _Traits:
    """Returns the traits of the checkpoint. Those of a commit of the Hub stay, so that they are
    remembered and need neither the network nor the Hub's cache again."""
    key = f"{checkpoint.place}/traits"
    known = facts.get(key) if is_hub(checkpoint.place) else None
    if isinstance(known, dict) and known.keys() == {field.name for field in fields(_Traits)}:
        return _Traits(**known)
    found = _traits(checkpoint)
    if is_hub(checkpoint.place) and checkpoint.place in facts:  # its files are all known
        facts[key] = asdict(found)
    return found


def _traits(checkpoint: Checkpoint) -> _Traits:
    # diffusers writes "lambda_min_clipped": -Infinity
    scheduler = json_object(checkpoint.resources()[SCHEDULER], SCHEDULER, SourceError,
                            has_infinities=True)
    predicts = predicted_by(scheduler)
    if checkpoint.has("transformer") and not checkpoint.has("unet"):
        return _traits_of_transformer(checkpoint, predicts)
    unet = {**DEFAULTS["UNet2DConditionModel"], **checkpoint.config("unet")}
    return _Traits(
        family=_family(unet, checkpoint), kind=_kind(unet),
        prompt_width=unet["cross_attention_dim"], channels=unet["block_out_channels"],
        predicts=predicts if isinstance(predicts, str) else None,
        size=_size(unet.get("sample_size"), checkpoint),
        lacks=_lacks(checkpoint, "sd"),
    )


def _traits_of_transformer(checkpoint: Checkpoint, predicts: Any) -> _Traits:
    own = {**DEFAULTS["SD3Transformer2DModel"], **checkpoint.config("transformer")}
    check_class("transformer", str(own.get("_class_name")), "sd3")
    sides = own["num_attention_heads"], own["attention_head_dim"]
    is_known = all(type(side) is int for side in sides)
    kind = "twice" if own["dual_attention_layers"] else "normalized" if own["qk_norm"] else ""
    return _Traits(
        family="sd3", kind=kind, prompt_width=own["joint_attention_dim"],
        channels=[sides[0] * sides[1]] if is_known else None,
        predicts=predicts if isinstance(predicts, str) else None,
        size=_size(own.get("sample_size"), checkpoint), lacks=_lacks(checkpoint, "sd3"),
    )


def _lacks(checkpoint: Checkpoint, family: str) -> list[str]:
    """Returns the folders that a checkpoint of a family may lack, and does."""
    optional = {c.folder for c in FAMILIES[family].components if c.is_optional}
    return sorted(folder for folder in optional if not checkpoint.has(folder))


def _family(unet: Mapping[str, Any], checkpoint: Checkpoint) -> str:
    """Returns the family of a U-Net, which may be alone; where its widths are of no published one,
    XL's refiner is what comes without the first of the two text encoders."""
    if unet["addition_embed_type"] != "text_time":
        return "sd"
    inferred = "sdxl" if checkpoint.has("text_encoder") else "sdxl-refiner"
    return published_family(unet) or inferred


def _kind(unet: Mapping[str, Any]) -> str:
    """Returns what a U-Net does beside drawing what a prompt says."""
    if unet["in_channels"] == 9:
        return "inpainting"
    return "distilled" if unet["time_cond_proj_dim"] else ""


def _size(sample_size: Any, checkpoint: Checkpoint) -> list[int] | None:
    """Width and height in pixels of a U-Net's `sample_size`: latents, or height and width."""
    sides = sample_size if isinstance(sample_size, list) else [sample_size] * 2
    if len(sides) != 2 or not all(type(side) is int and side in range(1, 2049) for side in sides):
        return None
    factor = _factor(checkpoint.config("vae")) if checkpoint.has("vae") else 8
    found = [side * factor for side in reversed(sides)]
    return found if all(side in _SIDES_PX for side in found) else None


def _factor(vae: Mapping[str, Any]) -> int:
    """Pixels a side of a latent: each level of an autoencoder but the last halves the picture."""
    channels = vae.get("block_out_channels", DEFAULTS["AutoencoderKL"]["block_out_channels"])
    return 1 << (min(len(channels), _MOST_LEVELS) - 1) if isinstance(channels, list) and channels \
        else 8
