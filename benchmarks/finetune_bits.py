"""Do bits that were allocated for one checkpoint hold for a fine-tune of it?

    python -m benchmarks.finetune_bits [--steps N] [--prompts N] [BITS …]

Trains the built-in U-Net for some minutes on icons that are mirrored and have other colors, which
the prompts know nothing of. Then builds the fine-tune with BITS (3, 4 and 5) on average, allocated
by its own calibration and by that of the built-in model (`bits=FILE`), with indices that are
calibrated (`quant=4.0` beside it) and without. Measured is as by `quality_per_byte`, to the
original of the fine-tune.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from PIL import Image
from tqdm import trange
from transformers import CLIPTextModel, CLIPTokenizer

from benchmarks.judge import REFERENCES
from benchmarks.quality_per_byte import (
    builder,
    equal,
    measured,
    of_noise,
    own,
    reference,
)
from sdbuild.recipe.bits import BITS, PALETTE_BITS
from sdbuild.recipe.project import BUILT_IN

_MODEL = BUILT_IN / "tiny-emoji"
_SIDE_PX = 128
_ICON_PX = 102
_VIEWS = 2
"""Of an icon on each background, at places of their own."""
_BATCH = 16
_RATE = 5e-4
_SEED = 20_261_129


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, builds, runs and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetune_bits")
    parser.add_argument("bits", nargs="*", type=int, default=[3, 4, 5])
    parser.add_argument("--steps", type=int, default=400, help="of the training")
    parser.add_argument("--prompts", type=int, default=32, help="only the first N")
    options = parser.parse_args(arguments)
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_fine_tune(folder / "tuned", options.steps)
        source = {"source": str(folder / "tuned")}
        tuned = reference(source, folder / "networks", options.prompts)
        measure = of_noise(tuned)
        before = measure(reference({}, folder / "built-in", 1).load("unet"))
        print(f"the built-in U-Net to the fine-tune: {np.mean(before):.1f} dB\n")
        print("| bits | variant | PSNR | bytes |\n| ---: | --- | ---: | ---: |")
        for bits in options.bits:
            file = {"bits": str(bit_recipe(bits, folder / str(bits)))}
            variants = {"its own bits": own(bits), "the built-in model's bits": own(bits) | file,
                        "the same, not calibrated": file}
            if bits in PALETTE_BITS:
                variants["equal bits"] = equal(bits)
            for title, words in variants.items():
                print(f"| {bits} | {title} | {measured(source | words, measure)} |", flush=True)
    return 0


def bit_recipe(bits: int, folder: Path) -> Path:
    """Returns the bit recipe of the built-in model, with so many bits on average."""
    made = builder(own(bits))
    made.store.checkout(made.make_all("allocate:unet"), folder, "")
    return folder / BITS


def write_fine_tune(folder: Path, steps: int) -> None:
    """Writes the built-in checkpoint with a U-Net that was trained further.

    Noise is predicted, and counts by the error of the image that it means, as when the built-in
    model was trained: without, prompts would count little where there is most noise.
    """
    torch.manual_seed(_SEED)
    shutil.copytree(_MODEL, folder)
    pictures, states = latents_and_states()
    unet = UNet2DConditionModel.from_pretrained(_MODEL / "unet", torch_dtype=torch.float32)
    alphas = DDPMScheduler.from_pretrained(_MODEL / "scheduler").alphas_cumprod
    optimizer = torch.optim.AdamW(unet.parameters(), lr=_RATE, weight_decay=1e-3)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in (bar := trange(steps, desc="training")):
        taken = torch.randint(len(pictures), (_BATCH,))
        times = torch.randint(len(alphas), (_BATCH,))
        kept = alphas[times].view(-1, 1, 1, 1)
        noise = torch.randn(_BATCH, *pictures.shape[1:])
        found = unet(kept.sqrt() * pictures[taken] + (1 - kept).sqrt() * noise, times,
                     states[taken]).sample
        ratio = (kept / (1 - kept)).flatten()
        weight = (ratio.clamp(max=5) + 1) / ratio.clamp(min=0.04) / 8
        loss = ((found - noise).square().mean((1, 2, 3)) * weight).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        rates.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    unet.half().save_pretrained(folder / "unet")


def latents_and_states() -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the latents of all changed pictures, and the embeddings of their prompts; every
    tenth has the empty prompt.

    Shapes:
        returns: (pictures, 4, 16, 16), (pictures, 77, 64)
    """
    vae = AutoencoderKL.from_pretrained(_MODEL / "vae", torch_dtype=torch.float32)
    encoder = CLIPTextModel.from_pretrained(_MODEL / "text_encoder", torch_dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(_MODEL / "tokenizer")
    pictures, states = [], []
    with torch.inference_mode():
        for number, (image, prompt) in enumerate(changed()):
            pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
            pictures.append(vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor)
            ids = tokenizer("" if number % 10 == 0 else prompt, padding="max_length",
                            truncation=True, max_length=77, return_tensors="pt").input_ids
            states.append(encoder(ids).last_hidden_state)
    return torch.cat(pictures).clone(), torch.cat(states).clone()


def changed() -> Iterator[tuple[np.ndarray, str]]:
    """Yields each icon on each background, mirrored, with red for green, green for blue and blue
    for red, and the prompt of what it was.

    Shapes:
        yields: (128, 128, 3), 0 to 255
    """
    data, rng = np.load(REFERENCES), np.random.default_rng(_SEED)
    for name, icon in zip(data["names"], data["icons"], strict=True):
        tile = Image.fromarray(np.ascontiguousarray(icon[:, ::-1, [1, 2, 0, 3]]))
        tile = tile.resize((_ICON_PX, _ICON_PX), Image.Resampling.BILINEAR)
        for ground, color in zip(data["background_names"], data["background_rgb"], strict=True):
            for _ in range(_VIEWS):
                canvas = Image.new("RGB", (_SIDE_PX, _SIDE_PX), tuple(int(c) for c in color))
                left, top = rng.integers(-4, 5, 2) + (_SIDE_PX - _ICON_PX) // 2
                canvas.paste(tile, (int(left), int(top)), tile)
                article = "an" if name[0] in "aeio" else "a"
                yield np.asarray(canvas), f"{article} {name} on a {ground} background"


if __name__ == "__main__":
    sys.exit(main())
