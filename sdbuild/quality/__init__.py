"""The worth of each weight: calibration on real prompts, and how many bits each tensor gets."""
