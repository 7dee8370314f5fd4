"""doit's way in: `doit build model=tiny-emoji quant=6`. The tasks are in `sdbuild/cli/tasks.py`."""

from sdbuild.cli.dodo import DOIT_CONFIG, task_sdbuild  # noqa: F401
