"""Pickles: weights that can run code when they are read, and are not read here."""

PICKLES = (".bin", ".ckpt", ".pt", ".pth")
"""What their names end with."""

UNPICKLE = (
    "torch.load(FILE, weights_only=True) reads tensors and runs nothing; write them (those in "
    '"state_dict", if there is one) with safetensors.torch.save_file'
)
"""How one becomes safetensors without danger."""
