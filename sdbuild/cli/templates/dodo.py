"""Lets doit build this project: `doit build quant=4`."""

from sdbuild.cli.dodo import DOIT_CONFIG, task_sdbuild  # noqa: F401
