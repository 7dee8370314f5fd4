"""Pickles: weights that can run code when they are read, and are not read here."""

PICKLES = (".bin", ".ckpt", ".pt", ".pth")
"""Suffixes of files that are read by unpickling."""

UNPICKLE = (
    "torch.load(FILE, weights_only=True) reads tensors and runs nothing; write them (those in "
    '"state_dict" or "string_to_param", if there is one) with safetensors.torch.save_file'
)
"""The hint that explains a safe conversion to safetensors."""
