"""The packages of the wheel, which has the recipes inside, and the page on PyPI.

All else is in pyproject.toml.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

_IMAGE = re.compile(r"^!\[[^]]*\]\((?!https?:)[^)]*\)\n+", re.MULTILINE)
_LINK = re.compile(r"\[([^]]*)\]\((?!https?:)[^)]*\)")


def description() -> str:
    """Returns README.md without images and links that lead into the repository: PyPI has no such
    files, so that they would be broken."""
    readme = Path(__file__).with_name("README.md").read_text("utf-8")
    return _LINK.sub(r"\1", _IMAGE.sub("", readme))


setup(
    packages=[*find_packages(include=["sdbuild", "sdbuild.*"]), "sdbuild.builtin"],
    package_dir={"sdbuild.builtin": "recipes"},
    long_description=description(),
    long_description_content_type="text/markdown",
)
