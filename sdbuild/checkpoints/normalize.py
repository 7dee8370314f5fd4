"""The one form of a part, whatever wrote it: what defines its network, and its tensors' names.

The same network has been written down in many ways: libraries add fields with the years, save
what they then leave out, and rename. Here each way becomes one, so that the same tensors give the
same artifact, and all checkpoints of an architecture share a trace.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sdbuild.base.errors import SourceError
from sdbuild.base.parsing import shown
from sdbuild.checkpoints import networks
from sdbuild.checkpoints.defaults import DEFAULTS, SCALES, SHIFTS
from sdbuild.checkpoints.layout import RESOURCES
from sdbuild.checkpoints.sidecar_configs import SIDECAR_FACTS, host_tokenizer, scheduler

if TYPE_CHECKING:
    from sdbuild.checkpoints import Checkpoint
    from sdbuild.safetensors.tensors import Tensor

_IRRELEVANT = frozenset({
    "architectures", "dtype", "model_type", "torch_dtype", "transformers_version",
    "initializer_factor", "initializer_range",           # of a training that begins
    "attention_dropout", "dropout",                      # of training
    "bos_token_id", "pad_token_id",                      # of others than the network
    "sample_size",                                       # a recipe's size decides
    "latents_mean", "latents_std", "scaling_factor", "shift_factor",  # of latents: `latents`
    "force_upcast", "upcast_attention",                  # casts to fp32, in which graphs are anyway
})
_KNOWN_ALONE = frozenset({"T5EncoderModel"})
"""The classes whose configs say more of another half than of the network."""

_WITHOUT_PROJECTION = frozenset({"CLIPTextModel"})
"""The classes in whose configs `projection_dim` is of CLIP's other half."""

_PER_BLOCK = ("attention_head_dim", "cross_attention_dim", "layers_per_block",
              "num_attention_heads", "only_cross_attention", "transformer_layers_per_block")
_CLIP_TOKENS, _CLIP_END = 49408, 49407
_CLIP_PARTS = ("embeddings.", "encoder.", "final_layer_norm.")
_CHECKER = "StableDiffusionSafetyChecker"
_CHECKER_PROJECTION = 512  # transformers' default
_VISION = "vision_model."
_LEARNED = "_COREML_/"
"""Of the names of what coremltools adds to a network that was palettized in training: tables, whose
entries its weights hold, and versions."""
_VAE_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_VAE_ATTENTION = re.compile(r"(.*\.attentions\.\d+)\.(query|key|value|proj_attn)\.(\w+)")


def architecture_of(
    checkpoint: Checkpoint, reads: Sequence[str], params: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the architecture of the first part that is read, and what those beside it say of it.

    Args:
        params: of the download, which may know better.

    Raises:
        SourceError: the config does not name a network, or a file beside it is not sound.
    """
    part, *sidecars = reads
    resources = checkpoint.resources() if sidecars else {}
    facts = {name: read(resources, params)
             for name, read in (SIDECAR_FACTS[folder] for folder in sidecars)}
    found = architecture(part, checkpoint.config(part), params.get("family", "sd"))
    return found | {name: what for name, what in facts.items() if what is not None}


def check(checkpoint: Checkpoint, reads: Sequence[str], params: Mapping[str, Any]) -> None:
    """Makes sure that what is read describes networks that can be built; reads no weights.

    Raises:
        SourceError: it does not, or a file that describes one is not sound.
    """
    if RESOURCES in reads:
        resources = checkpoint.resources()
        scheduler(resources, params)
        host_tokenizer(resources)
    else:
        architecture_of(checkpoint, reads, params)


def architecture(part: str, config: Mapping[str, Any], family: str = "sd") -> dict[str, Any]:
    """Returns the class of a network and what defines it, from its config.

    An autoencoder that says that it need not be computed in fp32 has `force_upcast` beside these.
    diffusers' default says that it must, and older configs are silent: neither is worth a word.

    Raises:
        SourceError: the config does not name a network, or names one that cannot be built in the
            family.
    """
    name = _class_name(part, config)
    networks.check_class(part, name, family)
    if name == _CHECKER:
        return {"class": name, "config": _checker(part, config)}
    found = {key: _same_for_all(value) if key in _PER_BLOCK else value
             for key, value in {**DEFAULTS.get(name, {}), **config}.items()}
    networks.check_fields(part, name, found, family)
    kept = {
        key: value for key, value in found.items()
        if not key.startswith("_") and key not in _IRRELEVANT
        and (name not in _KNOWN_ALONE or key in DEFAULTS[name])
    }
    if name in _WITHOUT_PROJECTION:
        kept.pop("projection_dim", None)
    if kept.get("eos_token_id") == 2 and kept.get("vocab_size") == _CLIP_TOKENS:
        # transformers takes 2 for the highest token, which in CLIP's vocabulary is the end token.
        kept["eos_token_id"] = _CLIP_END
    precision = {"force_upcast": False} if config.get("force_upcast") is False else {}
    return {"class": name, "config": kept, **precision}


def latents(
    part: str, config: Mapping[str, Any], family: str = "sd"
) -> dict[str, Any] | None:
    """Returns how an autoencoder's latents are scaled for the U-Net, which the networks do not
    know; None for other parts. Where the config is silent, as the family's are.

    Raises:
        SourceError: the config does not name a network, or the scale is no number above 0.
    """
    defaults = DEFAULTS.get(_class_name(part, config), {})
    if "scaling_factor" not in defaults:
        return None
    found = config.get("scaling_factor", SCALES.get(family, defaults["scaling_factor"]))
    shift = config.get("shift_factor", SHIFTS.get(family)) or 0
    if not _is_number(found) or not 0 < found < 1e3:
        raise SourceError(
            f"{part}/config.json: scaling_factor is {shown(found)}, expected a number above 0",
            hint="Stable Diffusion 1 and 2 have 0.18215, XL has 0.13025, 3 has 1.5305: write that, "
                 "or download the file again")
    return {"scaling_factor": float(found)} | ({"shift_factor": float(shift)} if shift else {})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _class_name(part: str, config: Mapping[str, Any]) -> str:
    try:
        return str(config.get("_class_name") or config["architectures"][0])
    except (KeyError, IndexError, TypeError) as error:
        raise SourceError(f"{part}/config.json: it does not name a network") from error


def _same_for_all(value: Any) -> Any:
    """Returns a value for each block, as one if all are the same: diffusers takes either."""
    if isinstance(value, list) and value and all(v == value[0] for v in value):
        return value[0]
    return value


def _checker(part: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parts of a config that define a safety checker: CLIP's vision model and a
    projection; not the text model that its config describes beside them, nor how to write
    sentences, as older ones have it.

    Raises:
        SourceError: what it says of the vision model is no JSON object.
    """
    vision = dict(DEFAULTS["CLIPVisionModel"])
    for field in ("vision_config", "vision_config_dict"):  # transformers lets the second win
        found = config.get(field) or {}
        if not isinstance(found, dict):
            raise SourceError(f"{part}/config.json: {field} is {found!r}, expected a JSON object")
        vision |= {name: found[name] for name in vision.keys() & found.keys()}
    networks.check_fields(part, "CLIPVisionModel", vision)
    made = {"projection_dim": config.get("projection_dim", _CHECKER_PROJECTION)}
    networks.check_fields(part, _CHECKER, made)
    return made | {"vision_config": vision}


def tensors(part: str, found: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yields a part's tensors by the names, and with the shapes, that its network is now written
    with."""
    own = [tensor for tensor in found if _LEARNED not in tensor.name]
    if part == "text_encoder_3":
        yield from _t5_tensors(own)
        return
    for tensor in own:
        if part == "vae":
            yield _vae_tensor(tensor)
        elif part not in _CLIP_NAMES:
            yield tensor
        elif not tensor.name.endswith(".position_ids"):  # a table of 0, 1, 2, …
            yield replace(tensor, name=_CLIP_NAMES[part](tensor.name))


_T5_SHARED, _T5_EMBEDDING = "shared.weight", "encoder.embed_tokens.weight"
"""T5's embedding is its encoder's and its decoder's, and is written by one of the names or both."""


def _t5_tensors(found: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yields those of the encoder, which may be part of a whole T5."""
    names = {tensor.name for tensor in found}
    for tensor in found:
        if tensor.name == _T5_SHARED and _T5_EMBEDDING not in names:
            yield replace(tensor, name=_T5_EMBEDDING)
        elif tensor.name.startswith("encoder."):
            yield tensor


def _clip_name(name: str) -> str:
    return f"text_model.{name}" if name.startswith(_CLIP_PARTS) else name


def _checker_name(name: str) -> str:
    """transformers 5 writes `vision_model.…` where files had `vision_model.vision_model.…`."""
    is_short = name.startswith(_VISION) and not name.startswith(_VISION * 2)
    return _VISION + name if is_short else name


_CLIP_NAMES = {"text_encoder": _clip_name, "text_encoder_2": _clip_name,
               "safety_checker": _checker_name}
"""Functions that rename the tensors of CLIP's models, by part."""


def _vae_tensor(tensor: Tensor) -> Tensor:
    """Attention was written as 1×1 convolutions once, and named otherwise (diffusers < 0.18)."""
    found = _VAE_ATTENTION.fullmatch(tensor.name)
    name = f"{found[1]}.{_VAE_NAMES[found[2]]}.{found[3]}" if found else tensor.name
    is_linear = ".attentions." in name and tensor.shape[2:] in ((1,), (1, 1))
    return replace(tensor, name=name, shape=tensor.shape[:2] if is_linear else tensor.shape)
