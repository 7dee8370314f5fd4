"""Pipelines of models that are not built, by the class that their `model_index.json` names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress

from sdbuild.base.errors import SourceError
from sdbuild.base.parsing import json_object, shown
from sdbuild.checkpoints.networks import NO_MORE

INDEX = "model_index.json"
_TRANSFORMER = "a transformer and text encoders of its own in place of the U-Net and CLIP"
_KINDS = {
    "Flux2": ("FLUX.2", _TRANSFORMER), "Flux": ("FLUX", _TRANSFORMER),
    "AltDiffusion": ("AltDiffusion", "another text encoder"),
    "AuraFlow": ("AuraFlow", _TRANSFORMER), "Bria": ("Bria", _TRANSFORMER),
    "Chroma": ("Chroma", _TRANSFORMER), "CogVideo": ("CogVideoX", "frames of a video"),
    "CogView": ("CogView", _TRANSFORMER), "Cosmos": ("Cosmos", "frames of a video"),
    "HiDream": ("HiDream", _TRANSFORMER), "HunyuanDiT": ("Hunyuan-DiT", _TRANSFORMER),
    "HunyuanVideo": ("Hunyuan Video", "frames of a video"),
    "IF": ("DeepFloyd IF", "pixels in place of latents"),
    "Kandinsky": ("Kandinsky", "a prior that makes an image embedding first"),
    "Kolors": ("Kolors", "ChatGLM as its text encoder"),
    "LTX": ("LTX-Video", "frames of a video"),
    "Lumina": ("Lumina", _TRANSFORMER), "OmniGen": ("OmniGen", _TRANSFORMER),
    "PixArt": ("PixArt", _TRANSFORMER), "QwenImage": ("Qwen-Image", _TRANSFORMER),
    "Sana": ("Sana", _TRANSFORMER), "StableCascade": ("Stable Cascade", "several stages"),
    "StableVideoDiffusion": ("Stable Video Diffusion", "frames of a video"),
    "Wan": ("Wan", "frames of a video"), "Wuerstchen": ("Würstchen", "several stages"),
    "ZImage": ("Z-Image", _TRANSFORMER),
}
"""Models that are refused, by a prefix of their pipeline classes: the model's name, and the feature
that no supported model has. A prefix of another one comes after it."""


@contextmanager
def refused_by_name(
    where: str, names: Collection[str], read: Callable[[str], bytes]
) -> Iterator[None]:
    """Says which model it is where a checkpoint lacks a part because it is of another kind.

    Args:
        names: the files that it has.
        read: gives the content of one.

    Raises:
        SourceError: it is of a model that is not built, or what was raised.
    """
    try:
        yield
    except SourceError as error:
        if INDEX not in names or "unet/config.json" in names:
            raise
        kind = None
        with suppress(SourceError):  # the missing part says more than this file's error
            kind = json_object(read(INDEX), f"{where}: {INDEX}", SourceError).get("_class_name")
        for start, (title, has) in _KINDS.items():
            if isinstance(kind, str) and kind.startswith(start):
                raise SourceError(
                    f"{where}: it is {title} ({INDEX} names {shown(kind)}), which has {has}: it "
                    "cannot be built", hint=NO_MORE, pipeline=kind,
                ) from error
        raise
