"""Tensors that are computed from another one while they are copied."""

import tracemalloc

import numpy as np
import torch
from diffusers.models.embeddings import PatchEmbed
from safetensors.torch import save_file

from sdbuild.safetensors.decode import to_array
from sdbuild.safetensors.derived import derived
from sdbuild.safetensors.tensors import table

SIDE, WIDTH = 192, 64


def test_a_crop_of_positions_is_that_of_diffusers_and_their_table_is_never_held(tmp_path):
    embed = PatchEmbed(patch_size=2, in_channels=16, embed_dim=WIDTH, pos_embed_max_size=SIDE)
    embed.pos_embed = torch.randn(1, SIDE * SIDE, WIDTH, generator=torch.Generator().manual_seed(2))
    save_file({"pos_embed": embed.pos_embed.half()}, tmp_path / "model.safetensors")
    stored = table([tmp_path / "model.safetensors"])["pos_embed"]

    tracemalloc.start()
    try:
        found = to_array(derived(stored, "center_crop", (12, 21, WIDTH)))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    wanted = embed.cropped_pos_embed(24, 42).half().numpy()
    assert np.array_equal(found.reshape(1, -1, WIDTH), wanted)
    assert peak_bytes < stored.size_bytes / 2


def test_numbers_that_parts_of_a_file_cut_are_put_together(tmp_path, monkeypatch):
    numbers = np.arange(30 * 4, dtype=np.float32).reshape(30, 4)
    save_file({"bias": torch.from_numpy(numbers)}, tmp_path / "model.safetensors")
    stored = table([tmp_path / "model.safetensors"])["bias"]
    shape = (4, 9, 9)
    whole = to_array(derived(stored, "relative_bias", shape))

    monkeypatch.setattr("sdbuild.safetensors.tensors._COPY_BYTES", 7)

    assert np.array_equal(to_array(derived(stored, "relative_bias", shape)), whole)
    assert set(whole.ravel()) <= set(numbers.ravel())
