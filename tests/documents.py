"""A sound document of each kind that is read from outside, to be mutated."""

import json
from pathlib import Path

from sdbuild.base.digest import digest
from sdbuild.store import Entry, Record

ROOT = Path(__file__).parents[1]
TINY = ROOT / "recipes" / "tiny-emoji"
RECIPE = {
    "family": "sd", "source": "x", "size": 64, "components": ["unet", "text_encoder"],
    "quant": 6, "batch": 2, "attention": "original", "chunk": 1, "target": "iOS16",
    "palettize": ["unet"], "vae": "y.safetensors", "lora": ["a.safetensors:0.5"],
    "draw": {"prompt": "a fox", "seed": 1, "steps": 20, "guidance": 7.5, "scheduler": "dpm"},
    "floors": {"unet": {"none": 45, "reason": "measured"}},
    "lock": {"unet": {"weights.safetensors": "0" * 64}},
}
UNET = json.loads((TINY / "unet" / "config.json").read_text())
TEXT = json.loads((TINY / "text_encoder" / "config.json").read_text())
VAE = json.loads((TINY / "vae" / "config.json").read_text())
XL = Path(__file__).parent / "fixtures" / "configs" / "stable-diffusion-xl-base-1.0"
XL_UNET = json.loads((XL / "unet" / "config.json").read_text())
XL_TEXT = json.loads((XL / "text_encoder_2" / "config.json").read_text())
HALF_UNET = {
    "input_blocks.0.0.weight": [64, 4, 3, 3], "time_embed.0.weight": [8, 64],
    "label_emb.0.0.weight": [8, 2816], "input_blocks.1.0.in_layers.2.weight": [64, 64, 3, 3],
    "input_blocks.2.0.op.weight": [64, 64, 3, 3], "input_blocks.3.1.proj_in.weight": [64, 64],
    "input_blocks.3.0.in_layers.2.weight": [128, 64, 3, 3],
    "input_blocks.3.1.transformer_blocks.0.attn2.to_k.weight": [64, 2048],
    "middle_block.1.proj_in.weight": [128, 128],
    "middle_block.1.transformer_blocks.0.attn2.to_k.weight": [128, 2048],
}
XL_FILE = {
    **{f"model.diffusion_model.{name}": shape for name, shape in (HALF_UNET | {
        "output_blocks.0.0.in_layers.2.weight": [128, 128, 3, 3],
        "output_blocks.0.1.transformer_blocks.0.attn2.to_k.weight": [128, 2048],
        "output_blocks.1.1.conv.weight": [128, 128, 3, 3],
        "output_blocks.2.0.in_layers.2.weight": [64, 128, 3, 3], "out.2.weight": [4, 64, 3, 3],
    }).items()},
    **{f"conditioner.embedders.1.model.{name}": shape for name, shape in {
        "text_projection": [1280, 4], "token_embedding.weight": [5, 1280],
        "positional_embedding": [77, 1280], "transformer.resblocks.0.mlp.c_fc.weight": [8, 4],
        "transformer.resblocks.0.attn.in_proj_weight": [12, 4],
        "transformer.resblocks.0.attn.in_proj_bias": [12]}.items()},
    "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight": [5, 768],
}
CONTROLNET_FILE = {f"control_model.{name}": shape for name, shape in (HALF_UNET | {
    "input_hint_block.0.weight": [8, 3, 3, 3], "input_hint_block.2.weight": [8, 8, 3, 3],
    "input_hint_block.4.weight": [16, 8, 3, 3], "input_hint_block.14.weight": [64, 16, 3, 3],
    "zero_convs.0.0.weight": [64, 64, 1, 1], "middle_block_out.0.weight": [128, 128, 1, 1],
}).items()}
SCHEDULER = json.loads((TINY / "scheduler" / "scheduler_config.json").read_text())
INDEX = {"metadata": {"total_size": 10},
         "weight_map": {"a": "m-00001-of-00002.safetensors", "b": "m-00002-of-00002.safetensors"}}
WORDS = {"a": 0, "b": 1, "b</w>": 2, "ab</w>": 3, "<|startoftext|>": 4, "<|endoftext|>": 5}
TOKENIZER = {"model": {"type": "BPE", "vocab": WORDS, "merges": [["a", "b</w>"]],
                       "end_of_word_suffix": "</w>", "continuing_subword_prefix": ""}}
TOKENIZER_CONFIG = {"pad_token": {"content": "<pad>"},
                    "added_tokens_decoder": {"9": {"content": "<pad>", "special": True}}}
HEADER = {"__metadata__": {"format": "pt"},
          "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
          "b": {"dtype": "F16", "shape": [4], "data_offsets": [16, 24]}}
MANIFEST = {
    "schema": 1, "name": "tiny", "family": "sd", "width_px": 64, "height_px": 64,
    "attention": "original", "target": "iOS16", "scale_factor": 0.18215, "pad_token": "a",
    "prediction_type": "epsilon", "scheduler": SCHEDULER, "draw": {"prompt": "a", "steps": 2},
    "components": {"unet": {"models": ["Unet.mlmodelc"], "nbits": None}},
    "files": {"file": [1, "0" * 32]}, "made_from": [],
}
PACKAGE = {"fileFormatVersion": "1.0.0", "rootModelIdentifier": "A",
           "itemInfoEntries": {"A": {"path": "com.apple.CoreML/model.mlmodel", "name": "m"}}}
INGREDIENTS = {"kind": "trace", "version": 1, "params": {}, "inputs": {}, "tools": {}, "source": {}}
KEY = digest("step", INGREDIENTS)
RECORD = Record(key=KEY, step="trace:unet", ingredients=INGREDIENTS, seconds=1.0, peak_bytes=1,
                tree=(Entry("a", "0" * 32, 3),), made_at="now", host="here", facts={"a": 1})

LORA_A = {"dtype": "F32", "shape": [2, 64], "data_offsets": [0, 512]}
LORA_B = {"dtype": "F32", "shape": [64, 2], "data_offsets": [512, 1024]}
LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
LAYER_SHAPES = {"down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight": (64, 64)}
LORA = {
    "__metadata__": {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 2, "unet.r": 2})},
    f"{LAYER}.lora_down.weight": LORA_A, f"{LAYER}.lora_up.weight": LORA_B,
    f"{LAYER}.alpha": {"dtype": "F32", "shape": [], "data_offsets": [1024, 1028]},
    "bundle_emb.x.string_to_param.*": {"dtype": "F16", "shape": [4], "data_offsets": [1028, 1036]},
}
BINDINGS = {"parameters": {"net.a": [2, 3], "net.b": [1]}, "bindings": [
    {"dtype": "fp16", "shape": [2, 3], "offset": 64, "parameter": "net.a", "is_transposed": True},
    {"dtype": "fp32", "shape": [1], "value": "b_0", "parameter": "net.b"},
    {"dtype": "int8", "shape": [4], "offset": 192, "constant": 64},
]}
ARCHITECTURE = {"class": "CLIPTextModel", "config": TEXT, "prediction": {"type": "v_prediction"},
                "padding": {"end_token_id": 2, "pad_token_id": 1}}
COMPILED = Path(__file__).parent / "fixtures" / "mlmodelc" / "silero_fp16" / "expected.mlmodelc"
"""A small model as Apple's compiler wrote it."""
