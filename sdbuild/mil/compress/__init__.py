"""Weights replaced by packed ones: palettes, small integers, sparse weights."""
