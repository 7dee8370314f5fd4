"""Compares the downloaded parts of a checkpoint's form with the expected ones."""

import torch
from safetensors.torch import load_file


def loaded(folder):
    return load_file(folder / "weights.safetensors")


def assert_equal(made, wanted):
    assert made.keys() == wanted.keys()
    assert all(torch.equal(made[name], wanted[name]) for name in made)
