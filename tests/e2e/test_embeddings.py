"""A learned word: what is made again for it, and what the text encoder says to it."""

import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from sdbuild.runtime import tokenizers
from sdbuild.runtime.predictor import load

END = "<|endoftext|>"


@pytest.mark.slow
def test_a_bundle_speaks_a_learned_word_as_diffusers_does(project, tmp_path, checkpoint):
    file = tmp_path / "learned_embeds.safetensors"
    save_file({"<cat-toy>": torch.randn(64, generator=torch.Generator().manual_seed(0)) / 9}, file)

    words = ("build", "quant=none", "chunk=1")
    ran = project.ran(*words, embedding=file)
    again = project.ran(*words, embedding=f"{file}:mycat")

    of_encoder = {"embed:resources", "embed:text_encoder", "convert:text_encoder",
                  "compile:text_encoder", "bundle"}
    assert ran == of_encoder
    assert again == {"embed:resources", "embed:text_encoder", "bundle"}  # in the same rows
    assert json.loads((project.bundle / "manifest.json").read_text())["words"] == [["mycat"]]
    pipe = StableDiffusionPipeline.from_pretrained(checkpoint, safety_checker=None)
    pipe.load_textual_inversion(file)
    with torch.inference_mode():
        wanted = pipe.text_encoder(pipe.tokenizer(
            "a <cat-toy>, on a blue background", padding="max_length", return_tensors="pt",
        ).input_ids).last_hidden_state.numpy()
    encoder = load([project.bundle / "TextEncoder.mlmodelc"], "portable", "original")
    for host, prompt in (("clip", "a mycat, on a blue background"),
                         ("swift", "a mycat , on a blue background")):
        ids = tokenizers.load(host, tokenizers.read(project.bundle), END).ids(prompt, 77)
        found = encoder.predict({"input_ids": np.array([ids], np.float32)})["last_hidden_state"]
        error = np.sqrt(np.mean((found - wanted) ** 2))
        assert 20 * np.log10(np.abs(wanted).max() / error) >= 60, host
