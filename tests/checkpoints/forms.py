"""What was downloaded of a form of a checkpoint, compared with what was wanted."""

import torch
from safetensors.torch import load_file


def loaded(folder):
    return load_file(folder / "weights.safetensors")


def assert_equal(made, wanted):
    assert made.keys() == wanted.keys()
    assert all(torch.equal(made[name], wanted[name]) for name in made)
