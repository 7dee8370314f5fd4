"""Checkpoints in one `.safetensors` file, as civitai and A1111 keep them: Stable Diffusion 1 and 2.

Such a file holds the tensors of all networks under the names of `ldm.py`, and nothing else: configs
are told from shapes (`infer.py`), the tokenizer is CLIP's, the scheduler's numbers are those that
the models were trained with. A folder given as `config` says all that instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints import infer, layout, ldm, networks, normalize, others, wrapped
from sdbuild.checkpoints.folder import DigestOf, Folder
from sdbuild.checkpoints.resources import SCHEDULER, TOKENIZER
from sdbuild.checkpoints.sidecar_configs import END_TOKEN

if TYPE_CHECKING:
    from sdbuild.safetensors.tensors import Tensor

CLIP = Path(__file__).parent / "clip"
"""CLIP's vocabulary, which all of them share; see its README.md."""

SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Home:
    """Where the tensors of a part may be: behind a prefix, or alone if one has the name `mark`.

    `named` gives them diffusers' names; `note` is recorded if they are taken from here.
    """

    named: Callable[[Mapping[str, Tensor]], ldm.Tensors]
    prefix: str = ""
    mark: str = ""
    note: str = ""

    def tensors(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors that are here, by the rest of their names."""
        if self.mark and self.mark not in found:
            return {}
        return {name.removeprefix(self.prefix): tensor
                for name, tensor in found.items() if name.startswith(self.prefix)}


_HOMES: Mapping[str, tuple[_Home, ...]] = {
    "unet": (
        _Home(prefix="model.diffusion_model.", named=ldm.unet),
        _Home(prefix="diffusion_model.", named=ldm.unet),
        _Home(mark="input_blocks.0.0.weight", named=ldm.unet),
        _Home(mark="time_embedding.linear_1.weight", named=ldm.renamed),
        _Home(prefix="model_ema.diffusion_model", named=ldm.ema_unet, note="averaged weights"),
    ),
    "vae": (
        _Home(prefix="first_stage_model.", named=ldm.vae),
        _Home(mark="decoder.conv_in.weight", named=ldm.vae),
    ),
    "text_encoder": (
        _Home(prefix="cond_stage_model.transformer.", named=ldm.renamed),
        _Home(prefix="cond_stage_model.model.", named=ldm.open_clip),
        _Home(mark="text_model.embeddings.token_embedding.weight", named=ldm.renamed),
        _Home(mark="embeddings.token_embedding.weight", named=ldm.renamed),
        _Home(mark="token_embedding.weight", named=ldm.open_clip),
    ),
}
"""The first that has tensors is taken."""

_TITLES = {"unet": "a U-Net", "vae": "an autoencoder", "text_encoder": "a text encoder"}
_LACKING = {
    "unet": "source=FILE is a complete checkpoint; vae=FILE is an autoencoder alone",
    "vae": layout.FROM_ELSEWHERE,
    "text_encoder": "components=unet,vae_decoder builds what the file has",
}
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
        self._notes: set[str] = set()
        if not path.is_file():
            raise SourceError(f"{path}: there is no such file")

    def __repr__(self) -> str:
        return self.place

    @property
    def origin(self) -> dict[str, Any]:
        """How its tensors were read, if not as they are; not where it is on some machine."""
        return {"read": sorted(self._notes)} if self._notes else {}

    def identity(self, part: str, digest_of: DigestOf) -> dict[str, str]:
        """The digest of the whole file, and of what else the part is made from."""
        found = {"file": digest_of(self.path)}
        if self._config:
            return found | self._config.config_identity(part, digest_of)
        if part == layout.RESOURCES or part in layout.FOLDERS:
            return found | {n: digest_of(CLIP / n) for n in ("vocab.json", "merges.txt")}
        return found

    def has(self, part: str) -> bool:
        """Whether it has the component."""
        return part in _HOMES and self._home(part) is not None

    def config(self, part: str) -> dict[str, Any]:
        """The part's config: the folder's, or as its tensors' shapes tell.

        Raises:
            SourceError: the part is not in the file, or is of another model.
        """
        if self._config:
            return self._config.config(part)
        tensors = normalize.tensors(part, self.tensors(part).values())
        shapes = {tensor.name: tensor.shape for tensor in tensors}
        where = self.place
        if part == "text_encoder":
            return infer.text_encoder(where, shapes, self._generation)
        return infer.unet(where, shapes) if part == "unet" else infer.vae(where, shapes)

    def tensors(self, part: str) -> dict[str, Tensor]:
        """The part's tensors, by diffusers' names.

        Raises:
            SourceError: the part is not in the file, which may be of another model.
        """
        kinds = "a checkpoint of Stable Diffusion 1 or 2"
        others.refuse(self.path, self._tensors,
                      f"an autoencoder, or {kinds}" if part == "vae" else kinds)
        if part not in _HOMES:
            raise SourceError(
                f"{self.path}: a single file has no {part}", hint=layout.LEAVE_OUT
            )
        home = self._home(part)
        if home is None:
            raise self._lacks(part)
        if home.note:
            self._notes.add(f"{part}: {home.note}")
        found = home.named(home.tensors(self._tensors))
        return self._used(found) if part == "text_encoder" else found

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
        pad = "!" if self._generation == 2 else END_TOKEN
        return {
            TOKENIZER.vocabulary: (CLIP / "vocab.json").read_bytes(),
            TOKENIZER.merges: (CLIP / "merges.txt").read_bytes(),
            TOKENIZER.special_tokens: json.dumps({"pad_token": pad}).encode(),
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
        if self._generation == 1 or kind.startswith("eps") or (
            said.get("modelspec.architecture") == "stable-diffusion-v2-512"
        ):
            return "epsilon"
        return None

    @cached_property
    def _generation(self) -> int:
        """1 or 2, by the width of prompts.

        Raises:
            SourceError: it is neither's, or its networks are of two models.
        """
        widths = {}
        for part in ("unet", "text_encoder"):
            if home := self._home(part):
                tensors = normalize.tensors(part, home.named(home.tensors(self._tensors)).values())
                shapes = {tensor.name: tensor.shape for tensor in tensors}
                widths[part] = infer.prompt_width(self.place, part, shapes)
        return infer.generation(self.place, widths)

    def _used(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """The text encoder's tensors without a last layer that Stable Diffusion 2 does not use."""
        if self._config:
            count = self._config.config("text_encoder").get("num_hidden_layers")
            return ldm.first_layers(found, count) if isinstance(count, int) else found
        shapes = {t.name: t.shape for t in normalize.tensors("text_encoder", found.values())}
        return ldm.first_layers(found, infer.used_layers(self.place, shapes))

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        from sdbuild.safetensors.tensors import table

        found, wrappers = wrapped.unwrapped(self.path, table([self.path]))
        self._notes |= {f"names without {wrapper}." for wrapper in wrappers}
        return found

    def _home(self, part: str) -> _Home | None:
        return next((home for home in _HOMES[part] if home.tensors(self._tensors)), None)

    def _lacks(self, part: str) -> SourceError:
        has = " and ".join(title for name, title in _TITLES.items() if self._home(name))
        return SourceError(
            f"{self.path}: it has no {part}: no tensor begins with {_HOMES[part][0].prefix}"
            + (f"; it has {has}" if has else ""),
            hint=_LACKING[part] if has else networks.NO_MORE,
        )
