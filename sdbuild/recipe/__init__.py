"""Declarations: recipes, their fields, families of models, names of bundles, lock files."""
