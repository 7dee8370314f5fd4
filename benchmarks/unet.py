"""U-Nets with random weights, made into packages by our own steps: what benchmarks measure on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdbuild.engine.process import run_step

SLIM = {
    "sample_size": 64, "in_channels": 4, "out_channels": 4, "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10], "use_linear_projection": True, "layers_per_block": 1,
    "block_out_channels": [320, 480],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}
"""A U-Net of about 50 million parameters."""

FULL = {
    "sample_size": 64, "in_channels": 4, "out_channels": 4, "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True, "layers_per_block": 2,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
}
"""Source: stabilityai/stable-diffusion-2-1-base, `unet/config.json`."""


def package(folder: Path, config: Mapping[str, Any]) -> Path:
    """The fp16 package of a U-Net of this configuration, made in `folder` unless it is there."""
    made = folder / "convert" / "Unet.mlpackage"
    if not made.exists():
        write_checkpoint(folder / "checkpoint", config)
        convert(made.parent, folder / "checkpoint")
    return made


def convert(folder: Path, checkpoint: Path, latents: int = 64) -> None:
    """Writes the fp16 package of a checkpoint, of so many latent cells on a side."""
    size = {"width_px": 8 * latents, "height_px": 8 * latents, "batch": 2}
    params = {"family": "sd", "component": "unet", "attention": "original", "target": "iOS16",
              "lower": "direct"}
    graph = folder / "graph"
    make_step("trace", graph, params | size, architecture=checkpoint / "architecture.json")
    make_step("convert", folder, params, graph=graph, checkpoint=checkpoint)


def write_checkpoint(path: Path, config: Mapping[str, Any]) -> None:
    """A checkpoint as the download step lays it out."""
    import torch
    from diffusers import UNet2DConditionModel
    from safetensors.torch import save_file

    path.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    weights = UNet2DConditionModel.from_config(dict(config)).state_dict()
    save_file({name: tensor.half() for name, tensor in weights.items()},
              path / "weights.safetensors")
    architecture = {"class": "UNet2DConditionModel", "config": config}
    (path / "architecture.json").write_text(json.dumps(architecture), "utf-8")


def make_step(kind: str, output: Path, params: Mapping[str, Any], **inputs: Path) -> None:
    """Runs one of our steps in its own process."""
    output.mkdir(parents=True, exist_ok=True)
    job = {"params": dict(params), "inputs": {key: str(path) for key, path in inputs.items()},
           "output": str(output), "places": [], "config": "", "facts": {}, "reads": (),
           "locked": {}, "resources": {}}
    run_step(kind, job, output)
