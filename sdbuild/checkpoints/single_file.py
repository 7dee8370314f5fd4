"""Checkpoints in one `.safetensors` file, as civitai and A1111 keep them: Stable Diffusion 1, 2,
XL and 3, and ControlNets.

Such a file holds the tensors of all networks under the names of `ldm.py`, and nothing else: configs
are inferred from shapes (`infer.py`), the tokenizer is CLIP's, the scheduler's numbers are those
that the models were trained with. A folder given as `config` says all that instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints import infer, layout, ldm, mmdit, networks, normalize, others, wrapped
from sdbuild.checkpoints.folder import DigestOf, Folder
from sdbuild.checkpoints.homes import HOMES, LACKING, TITLES, Home
from sdbuild.checkpoints.resources import SCHEDULER, TOKENIZER, TOKENIZER_2, Tokenizer
from sdbuild.checkpoints.sidecar_configs import END_TOKEN

if TYPE_CHECKING:
    from sdbuild.safetensors.tensors import Tensor

CLIP = Path(__file__).parent / "clip"
"""CLIP's vocabulary, which all of them share; see its README.md."""

SUFFIX = ".safetensors"


SD_SCHEDULER = {
    "_class_name": "PNDMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "clip_sample": False, "num_train_timesteps": 1000,
    "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None,
}
"""Source: runwayml/stable-diffusion-v1-5, `scheduler_config.json`; 2.1 has the same numbers."""

XL_SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "interpolation_type": "linear", "num_train_timesteps": 1000,
    "steps_offset": 1, "timestep_spacing": "leading", "trained_betas": None,
    "use_karras_sigmas": False,
}
"""Source: stabilityai/stable-diffusion-xl-base-1.0, `scheduler_config.json`."""

FLOW_SCHEDULER = {
    "_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0,
}
"""Source: stabilityai/stable-diffusion-3.5-medium, `scheduler_config.json`."""

_ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
"""Of models trained to the last step, where all is noise."""

_ENCODERS = ("text_encoder", "text_encoder_2")
_INFERRED = {"unet": infer.unet, "controlnet": infer.controlnet, "transformer": mmdit.config,
             "text_encoder_3": mmdit.text_encoder_3}
"""Functions that infer the config of a part from its shapes, the same for every model."""


class SingleFile:
    """A checkpoint in one file.

    Args:
        config: a folder that says what the file does not.

    Raises:
        SourceError: there is no such file.
    """

    def __init__(self, path: Path, config: Folder | None = None) -> None:
        self.path = path
        self.place = str(path)
        self._config = config
        self._notes: set[str] = set()
        if not path.is_file():
            raise SourceError(f"{path}: there is no such file")

    def __repr__(self) -> str:
        return self.place

    @property
    def origin(self) -> dict[str, Any]:
        """Returns how its tensors were converted, if they were; no location, which differs by
        machine."""
        return {"read": sorted(self._notes)} if self._notes else {}

    def identity(self, part: str, digest_of: DigestOf) -> dict[str, str]:
        """Returns the digest of the whole file, and of what else the part is made from."""
        found = {"file": digest_of(self.path)}
        if self._config:
            return found | self._config.config_identity(part, digest_of)
        if part == layout.RESOURCES or part in layout.FOLDERS:
            return found | {n: digest_of(CLIP / n) for n in ("vocab.json", "merges.txt")}
        return found

    def has(self, part: str) -> bool:
        """Whether it has the component."""
        return part in HOMES and self._home(part) is not None

    def config(self, part: str) -> dict[str, Any]:
        """Returns the part's config: the folder's, or as its tensors' shapes tell.

        Raises:
            SourceError: the part is not in the file, or is of another model.
        """
        if self._config:
            return self._config.config(part)
        shapes = _shapes(part, self.tensors(part))
        where = self.place
        if part in _INFERRED:
            return _INFERRED[part](where, shapes)
        if part == "text_encoder" and self._model == infer.THIRD:
            return mmdit.text_encoder(where, shapes)
        if part in _ENCODERS:
            infer_encoder = getattr(infer, part)
            return dict(infer_encoder(where, shapes, self._model))
        is_whole = self._home("unet") or self._home("transformer")
        return infer.vae(where, shapes, self._model if is_whole else "")

    def tensors(self, part: str) -> dict[str, Tensor]:
        """Returns the part's tensors, by diffusers' names.

        Raises:
            SourceError: the part is not in the file, which may be of another model.
        """
        others.refuse(self.path, self._tensors, part)
        if part not in HOMES:
            raise SourceError(
                f"{self.path}: a single file has no {part}", hint=layout.LEAVE_OUT
            )
        home = self._home(part)
        if home is None:
            raise self._lacks(part)
        if home.note:
            self._notes.add(f"{part}: {home.note}")
        found = home.named(home.tensors(self._tensors))
        is_used = part == "text_encoder" and not self._home("transformer")
        return self._used(found) if is_used else found

    def resources(self) -> Mapping[str, bytes]:
        """Tokenizer and scheduler. That of Stable Diffusion 2 does not say what its U-Net
        predicts (`null`) unless the file's metadata does.

        Raises:
            SourceError: the file is of another model.
        """
        if self._config:
            return self._config.config_resources()
        is_third = self._model == infer.THIRD
        self.config("transformer" if is_third else "unet")
        base = XL_SCHEDULER if self._model in (infer.XL, infer.REFINER) else SD_SCHEDULER
        scheduler = FLOW_SCHEDULER if is_third else base | (
            _ZERO_SNR if "ztsnr" in self._tensors else {}) | {
            "prediction_type": self._prediction_type()}
        return {
            **{name: content for tokenizer, pad in _PADS[self._model].items()
               for name, content in _tokenizer(tokenizer, pad).items()},
            SCHEDULER: json.dumps(scheduler, indent=2).encode(),
        }

    def _prediction_type(self) -> str | None:
        """Source: ModelSpec 1.0.0 for the metadata; `v_pred` is what trainers leave as a mark."""
        from sdbuild.safetensors.tensors import metadata

        said = metadata(self.path)
        kind = said.get("modelspec.prediction_type", "")
        if kind.startswith("v") or "v_pred" in self._tensors or (
            said.get("modelspec.architecture", "").startswith("stable-diffusion-v2-768-v")
        ):
            return "v_prediction"
        if self._model != infer.SECOND or kind.startswith("eps") or (
            said.get("modelspec.architecture") == "stable-diffusion-v2-512"
        ):
            return "epsilon"
        return None

    @cached_property
    def _model(self) -> str:
        """Returns the model that it is, by the widths of prompts.

        Raises:
            SourceError: it is none, or its networks are of two models.
        """
        if self._home("transformer"):
            return infer.THIRD
        widths = {}
        for part in ("unet", *_ENCODERS):
            if home := self._home(part):
                shapes = _shapes(part, home.named(home.tensors(self._tensors)))
                widths[part] = infer.prompt_width(self.place, part, shapes)
        return infer.model(self.place, widths)

    def _used(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns the text encoder's tensors without a last layer that Stable Diffusion 2 does not
        use."""
        if self._config:
            count = self._config.config("text_encoder").get("num_hidden_layers")
            return ldm.first_layers(found, count) if isinstance(count, int) else found
        shapes = _shapes("text_encoder", found)
        return ldm.first_layers(found, infer.used_layers(self.place, shapes))

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        from sdbuild.safetensors.tensors import table

        found, wrappers = wrapped.unwrapped(self.path, table([self.path]))
        self._notes |= {f"names without {wrapper}." for wrapper in wrappers}
        return found

    def _home(self, part: str) -> Home | None:
        if part == "unet" and self._home("transformer"):  # which has the same prefix
            return None
        return next((home for home in HOMES[part] if home.tensors(self._tensors)), None)

    def _lacks(self, part: str) -> SourceError:
        has = " and ".join(title for name, title in TITLES.items() if self._home(name))
        return SourceError(
            f"{self.path}: it has no {part}: no tensor begins with {HOMES[part][0].prefix}"
            + (f"; it has {has}" if has else ""),
            hint=LACKING[part] if has else networks.NO_MORE,
        )


_PADS = {
    infer.FIRST: {TOKENIZER: END_TOKEN}, infer.SECOND: {TOKENIZER: "!"},
    infer.XL: {TOKENIZER: END_TOKEN, TOKENIZER_2: "!"},
    infer.THIRD: {TOKENIZER: END_TOKEN, TOKENIZER_2: "!"}, infer.REFINER: {TOKENIZER_2: "!"},
}
"""The tokenizers of each model, and what they pad prompts with."""


def _tokenizer(tokenizer: Tokenizer, pad: str) -> dict[str, bytes]:
    return {
        tokenizer.vocabulary: (CLIP / "vocab.json").read_bytes(),
        tokenizer.merges: (CLIP / "merges.txt").read_bytes(),
        tokenizer.special_tokens: json.dumps({"pad_token": pad}).encode(),
    }


def _shapes(part: str, found: Mapping[str, Tensor]) -> infer.Shapes:
    """Returns the shapes of a part's tensors, by the names that its network has for them."""
    return {tensor.name: tensor.shape for tensor in normalize.tensors(part, found.values())}
