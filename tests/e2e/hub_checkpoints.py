"""The built-in checkpoint as a repository, in several forms."""

import json
from pathlib import Path

from safetensors.numpy import load, save

from sdbuild.store import Store

CHECKPOINT = Path(__file__).parent.parent.parent / "recipes" / "tiny-emoji"
UNET = "unet/diffusion_pytorch_model.safetensors"
SCHEDULER = "scheduler/scheduler_config.json"
PLACE = "hub:owner/tiny"


def content(folder=CHECKPOINT):
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}


def record(project, step):
    return next(r for r in Store(project.cache).records() if r.step == step)


def files_asked_for(hub):
    return sorted({path.partition("/resolve/")[2].partition("/")[2]
                   for path in hub.paths("HEAD") if "/resolve/" in path})


def with_other_weights(how):
    """The checkpoint, with the U-Net's weights in another form."""
    files = content()
    tensors = load(files.pop(UNET))
    return files | how(tensors)


def sharded(tensors, stem="unet/diffusion_pytorch_model", index="safetensors.index.json"):
    names = sorted(tensors)
    parts = {f"{stem}-0000{n}-of-00002.safetensors": names[n - 1::2] for n in (1, 2)}
    weight_map = {name: Path(file).name for file, members in parts.items() for name in members}
    return {f"{stem}.{index}": json.dumps({"weight_map": weight_map}).encode()} | {
        file: save({name: tensors[name] for name in members}) for file, members in parts.items()}
