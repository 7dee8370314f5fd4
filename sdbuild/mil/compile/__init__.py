"""Packages compiled to `.mlmodelc`, as Apple's compiler does it."""
