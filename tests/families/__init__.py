"""Families of models, from checkpoint to bundle."""
