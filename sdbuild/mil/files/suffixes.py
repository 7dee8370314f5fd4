"""Names of the folders of models and of the files in them. Imports nothing heavy."""

PACKAGE = ".mlpackage"
COMPILED = ".mlmodelc"

ROOT = "Data/com.apple.CoreML"
"""The folder of a package that `@model_path` stands for."""
WEIGHTS_IN_PACKAGE = f"{ROOT}/weights/weight.bin"
