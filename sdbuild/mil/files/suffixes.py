"""How the folders of models are called, by their form. Imports nothing heavy."""

PACKAGE = ".mlpackage"
COMPILED = ".mlmodelc"
