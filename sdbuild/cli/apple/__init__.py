"""The command lines of apple/ml-stable-diffusion: their flags, and what sdbuild does for each."""
