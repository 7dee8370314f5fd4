"""diffusers' networks as the components of a bundle, in fp32: what pipelines are compared on, at no
cost of rounding."""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass
class Part:
    """A predictor: the shapes of its inputs, and a function of tensors that gives outputs."""

    shapes: dict
    function: object

    def predict(self, inputs):
        assert inputs.keys() == self.shapes.keys()
        for name, value in inputs.items():
            assert value.shape == tuple(self.shapes[name]), name
        with torch.inference_mode():
            found = self.function(**{k: torch.from_numpy(v).float() for k, v in inputs.items()})
        return {name: value.numpy() for name, value in found.items()}


def _rows(hidden):
    return hidden[:, :, 0].transpose(1, 2)  # (B, D, 1, S) -> (B, S, D)


def text_encoder(model, length=77):
    def run(input_ids):
        found = model(input_ids.long(), output_hidden_states=True)
        pooled = found.text_embeds if hasattr(found, "text_embeds") else found.pooler_output
        return {"hidden_embeds": found.hidden_states[-2], "pooled_outputs": pooled,
                "last_hidden_state": found.last_hidden_state}
    return Part({"input_ids": (1, length)}, run)


def unet(model, cells, length=77, batch=2, numbers=None, residuals=()):
    """`numbers` is how many time ids it takes, `residuals` the shapes of what ControlNets add."""
    config = model.config
    shapes = {"sample": (batch, config.in_channels, *cells), "timestep": (batch,),
              "encoder_hidden_states": (batch, config.cross_attention_dim, 1, length)}
    shapes |= _added(config, batch, numbers)
    shapes |= {f"additional_residual_{i}": shape for i, shape in enumerate(residuals)}

    def run(sample, timestep, encoder_hidden_states, **more):
        added = [more.pop(f"additional_residual_{i}") for i in range(len(residuals))]
        given = {"added_cond_kwargs": more} if more else {}
        if added:
            given |= {"down_block_additional_residuals": added[:-1],
                      "mid_block_additional_residual": added[-1]}
        return {"noise_pred": model(sample, timestep, _rows(encoder_hidden_states), **given).sample}
    return Part(shapes, run)


def _added(config, batch, numbers):
    """The shapes of what XL's networks are given beside a prompt; none of others."""
    if not numbers:
        return {}
    width = config.projection_class_embeddings_input_dim - numbers * config.addition_time_embed_dim
    return {"time_ids": (batch, numbers), "text_embeds": (batch, width)}


def controlnet(model, cells, pixels, length=77, batch=2, numbers=None):
    shapes = {"sample": (batch, 4, *cells), "timestep": (batch,),
              "encoder_hidden_states": (batch, model.config.cross_attention_dim, 1, length),
              "controlnet_cond": (batch, 3, *pixels), **_added(model.config, batch, numbers)}

    def run(sample, timestep, encoder_hidden_states, controlnet_cond, **more):
        given = {"added_cond_kwargs": more} if more else {}
        down, mid = model(sample, timestep, _rows(encoder_hidden_states), controlnet_cond,
                          return_dict=False, **given)
        return {f"additional_residual_{i}": value for i, value in enumerate((*down, mid))}
    return Part(shapes, run)


def vae_decoder(model, cells):
    return Part({"z": (1, 4, *cells)}, lambda z: {"image": model.decode(z).sample})


def vae_encoder(model, pixels):
    return Part({"x": (1, 3, *pixels)},
                lambda x: {"latent": model.encode(x).latent_dist.parameters})


def residual_shapes(model, cells, length=77, batch=2, numbers=None):
    """The shapes of what a ControlNet gives."""
    pixels = tuple(8 * side for side in cells)
    part = controlnet(model, cells, pixels, length, batch, numbers)
    found = part.predict({k: np.zeros(v, np.float32) for k, v in part.shapes.items()})
    return [found[f"additional_residual_{i}"].shape for i in range(len(found))]
