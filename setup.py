"""The packages of the wheel, which has the recipes inside; all else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["sdbuild", "sdbuild.*"]), "sdbuild.builtin"],
    package_dir={"sdbuild.builtin": "recipes"},
)
