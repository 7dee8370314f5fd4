"""Prefixes and names of the tensors of each part in a single file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdbuild.checkpoints import layout, ldm, mmdit

if TYPE_CHECKING:
    from sdbuild.safetensors.tensors import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """The location of the tensors of a part: behind a prefix, or alone if one has the name `mark`.

    `named` gives them diffusers' names; `note` is recorded if they are taken from here.
    """

    named: Callable[[Mapping[str, Tensor]], ldm.Tensors]
    prefix: str = ""
    mark: str = ""
    note: str = ""

    def tensors(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the tensors that are here, by the rest of their names."""
        if self.mark and self.mark not in found:
            return {}
        return {name.removeprefix(self.prefix): tensor
                for name, tensor in found.items() if name.startswith(self.prefix)}


_SD3 = "model.diffusion_model."

HOMES: Mapping[str, tuple[Home, ...]] = {
    "transformer": (
        Home(prefix=_SD3, mark=f"{_SD3}{mmdit.MARK}", named=mmdit.named),
        Home(prefix="diffusion_model.", mark=f"diffusion_model.{mmdit.MARK}", named=mmdit.named),
        Home(mark=mmdit.MARK, named=mmdit.named),
        Home(mark=mmdit.OWN_MARK, named=ldm.renamed),
    ),
    "unet": (
        Home(prefix="model.diffusion_model.", named=ldm.unet),
        Home(prefix="diffusion_model.", named=ldm.unet),
        Home(mark="input_blocks.0.0.weight", named=ldm.unet),
        Home(mark="time_embedding.linear_1.weight", named=ldm.renamed),
        Home(prefix="model_ema.diffusion_model", named=ldm.ema_unet, note="averaged weights"),
    ),
    "controlnet": (
        Home(prefix="control_model.", named=ldm.controlnet),
        Home(mark="input_hint_block.0.weight", named=ldm.controlnet),
        Home(mark="controlnet_cond_embedding.conv_in.weight", named=ldm.renamed),
    ),
    "vae": (
        Home(prefix="first_stage_model.", named=ldm.vae),
        Home(mark="decoder.conv_in.weight", named=ldm.vae),
    ),
    "text_encoder_3": (
        Home(prefix="text_encoders.t5xxl.transformer.", named=ldm.renamed),
    ),
    "text_encoder": (
        Home(prefix="text_encoders.clip_l.transformer.", named=ldm.renamed),
        Home(prefix="cond_stage_model.transformer.", named=ldm.renamed),
        Home(prefix="cond_stage_model.model.", named=ldm.open_clip),
        Home(prefix="conditioner.embedders.0.transformer.", named=ldm.renamed),
        Home(mark="text_model.embeddings.token_embedding.weight", named=ldm.renamed),
        Home(mark="embeddings.token_embedding.weight", named=ldm.renamed),
        Home(mark="token_embedding.weight", named=ldm.open_clip),
    ),
    "text_encoder_2": (
        Home(prefix="text_encoders.clip_g.transformer.", named=ldm.renamed),
        Home(prefix="conditioner.embedders.1.model.", named=ldm.projected_open_clip),
        Home(prefix="conditioner.embedders.0.model.", named=ldm.projected_open_clip),  # refiner's
    ),
}
"""The first that has tensors is taken."""

TITLES = {"unet": "a U-Net", "vae": "an autoencoder", "text_encoder": "a text encoder",
          "text_encoder_2": "a second text encoder", "text_encoder_3": "T5",
          "transformer": "a transformer", "controlnet": "a ControlNet"}
LACKING = {
    "unet": "source=FILE is a complete checkpoint; vae=FILE is an autoencoder alone",
    "vae": layout.FROM_ELSEWHERE,
    "text_encoder": "components=unet,vae_decoder builds what the file has",
    "text_encoder_2": "components=unet,vae_decoder builds what the file has",
    "text_encoder_3": "components=text_encoder,text_encoder_2,transformer,vae_decoder builds "
                      "without T5; a folder of diffusers has it",
    "transformer": "source=FILE is a complete checkpoint; vae=FILE is an autoencoder alone",
    "controlnet": "the file of a ControlNet has its tensors by the names of its first code, or of "
                  "diffusers",
}
"""Hints for a file that lacks a part, by part."""
