"""doit's way in: `doit build model=tiny-emoji quant=6`. The tasks are in `sdbuild/cli/tasks.py`."""

from sdbuild.cli.tasks import Reporter, load
from sdbuild.recipe.settings import database

DOIT_CONFIG = {
    "default_tasks": ["build"],
    "reporter": Reporter,
    "backend": "json",
    "dep_file": str(database()),
    "verbosity": 1,
}


def task_sdbuild():
    """The steps of the recipe, and build, check and generate above them."""
    yield from load()
