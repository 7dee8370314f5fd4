"""Suffixes of the folders of models, by their format. Imports nothing heavy."""

PACKAGE = ".mlpackage"
COMPILED = ".mlmodelc"
