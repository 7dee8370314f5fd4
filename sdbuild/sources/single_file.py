"""Checkpoints in one `.safetensors` file, as civitai and A1111 keep them: Stable Diffusion 1 and 2.

Such a file holds the tensors of all networks under the names of `ldm.py`, and nothing else: configs
are told from shapes (`infer.py`), the tokenizer is CLIP's, the scheduler's numbers are those that
the models were trained with. A folder given as `config` says all that instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.errors import SourceError
from sdbuild.sources import form, infer, layout, ldm
from sdbuild.sources.beside import END_TOKEN
from sdbuild.sources.folder import DigestOf, Folder
from sdbuild.sources.resources import MERGES, SCHEDULER, SPECIAL_TOKENS, VOCABULARY

if TYPE_CHECKING:
    from sdbuild.sources.tensors import Tensor

CLIP = Path(__file__).parent / "clip"
"""CLIP's vocabulary, which all of them share; see its README.md."""

SUFFIX = ".safetensors"
_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_CLIP, _OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
_OTHERS = tuple((re.compile(pattern), kind, hint) for pattern, kind, hint in (
    (r"lora_(unet|te)|.*\.lora_[AB]\.|.*[._]lora\.(up|down)\.", "is a LoRA",
     "lora=FILE merges it into the checkpoint that it was made for"),
    (r"conditioner\.embedders\.", "is of Stable Diffusion XL", ""),
    (r"(model\.diffusion_model\.)?joint_blocks\.", "is of Stable Diffusion 3", ""),
    (r"(model\.diffusion_model\.)?double_blocks\.", "is of FLUX", ""),
    (r"control_model\.|input_hint_block\.", "is a ControlNet", ""),
    (r"model\.diffusion_model\.label_emb\.", "takes more than a prompt, as Stable Diffusion XL "
     "and unCLIP do", ""),
    (r"(emb_params|string_to_param|clip_[lg])\b", "is an embedding (textual inversion)", ""),
    (r"(unet\.)?down_blocks\.|(text_model\.)?encoder\.layers\.", "is one component, by diffusers' "
     "names", "source=FOLDER is a whole checkpoint in diffusers' layout"),
))
_NO_MORE = "the models that can be built are Stable Diffusion 1 and 2, text to image"
_SCHEDULER = {
    "_class_name": "PNDMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "clip_sample": False, "num_train_timesteps": 1000,
    "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None,
}
"""Source: runwayml/stable-diffusion-v1-5, `scheduler_config.json`; 2.1 has the same numbers."""


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
        if not path.is_file():
            raise SourceError(f"{path}: there is no such file")

    def __repr__(self) -> str:
        return self.place

    @property
    def origin(self) -> dict[str, Any]:
        """Nothing: where a file lies on some machine is nobody else's business."""
        return {}

    def identity(self, part: str, digest_of: DigestOf) -> dict[str, str]:
        """The digest of the whole file, and of what else the part is made from."""
        found = {"file": digest_of(self.path)}
        if self._config:
            return found | self._config.config_identity(part, digest_of)
        if part == layout.RESOURCES or part in layout.FOLDERS:
            return found | {n: digest_of(CLIP / n) for n in ("vocab.json", "merges.txt")}
        return found

    def config(self, part: str) -> dict[str, Any]:
        """The part's config: the folder's, or as its tensors' shapes tell.

        Raises:
            SourceError: the part is not in the file, or is of another model.
        """
        if self._config:
            return self._config.config(part)
        tensors = form.tensors(part, self.tensors(part).values())
        shapes = {tensor.name: tensor.shape for tensor in tensors}
        where = self.place
        if part == "text_encoder":
            return infer.text_encoder(where, shapes, "gelu" if self._is_second else "quick_gelu")
        return infer.unet(where, shapes) if part == "unet" else infer.vae(where, shapes)

    def tensors(self, part: str) -> dict[str, Tensor]:
        """The part's tensors, by diffusers' names.

        Raises:
            SourceError: the part is not in the file, which may be of another model.
        """
        self._expect(part)
        if part == "vae":
            alone = self._tensors if "decoder.conv_in.weight" in self._tensors else {}
            return ldm.vae(self._behind(_VAE) or alone or self._lacks(part, _VAE))
        if part == "unet":
            return ldm.unet(self._behind(_UNET) or self._lacks(part, _UNET))
        if part != "text_encoder":
            raise SourceError(
                f"{self.path}: a single file has no {part}", hint=layout.LEAVE_OUT
            )
        if found := self._behind(_CLIP):
            return ldm.renamed(found)
        return ldm.open_clip(self._behind(_OPEN_CLIP) or self._lacks(part, _CLIP))

    def resources(self) -> Mapping[str, bytes]:
        """Tokenizer and scheduler. That of Stable Diffusion 2 does not say what its U-Net
        predicts (`null`) unless the file's metadata tells.

        Raises:
            SourceError: the file is of another model.
        """
        if self._config:
            return self._config.config_resources()
        self.config("unet")
        scheduler = _SCHEDULER | {"prediction_type": self._prediction_type()}
        pad = "!" if self._is_second else END_TOKEN
        return {
            VOCABULARY: (CLIP / "vocab.json").read_bytes(),
            MERGES: (CLIP / "merges.txt").read_bytes(),
            SPECIAL_TOKENS: json.dumps({"pad_token": pad}).encode(),
            SCHEDULER: json.dumps(scheduler, indent=2).encode(),
        }

    def _prediction_type(self) -> str | None:
        """Source: ModelSpec 1.0.0 for the metadata; `v_pred` is what trainers leave as a mark."""
        from sdbuild.sources.tensors import metadata

        said = metadata(self.path)
        kind = said.get("modelspec.prediction_type", "")
        if kind.startswith("v") or "v_pred" in self._tensors or (
            said.get("modelspec.architecture", "").startswith("stable-diffusion-v2-768-v")
        ):
            return "v_prediction"
        if not self._is_second or kind.startswith("eps") or (
            said.get("modelspec.architecture") == "stable-diffusion-v2-512"
        ):
            return "epsilon"
        return None

    @property
    def _is_second(self) -> bool:
        return any(name.startswith(_OPEN_CLIP) for name in self._tensors)

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        from sdbuild.sources.tensors import table

        return table([self.path])

    def _expect(self, part: str) -> None:
        """Refuses a file that is of another model, or of something else."""
        alone = "an autoencoder, or " if part == "vae" else ""
        for pattern, kind, hint in _OTHERS:
            if any(pattern.match(name) for name in self._tensors):
                raise SourceError(f"{self.path}: the file {kind}, expected {alone}a checkpoint of "
                                  "Stable Diffusion 1 or 2", hint=hint or _NO_MORE)

    def _behind(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with the prefix, by the rest of their names."""
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self._tensors.items() if name.startswith(prefix)
        }

    def _lacks(self, part: str, prefix: str) -> Mapping[str, Tensor]:
        raise SourceError(
            f"{self.path}: it has no {part}: no tensor begins with {prefix}",
            hint=layout.FROM_ELSEWHERE if part == "vae" else _NO_MORE,
        )
