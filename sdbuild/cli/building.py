"""A build as commands run it: reported step by step, or printed as JSON at its end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout

from sdbuild.cli.options import open_store, print_json


def build(words: dict[str, str], tasks: Sequence[str], jobs: int | None, *, is_json: bool) -> int:
    """Builds tasks with what they need; returns the exit status.

    Raises:
        RecipeError, SourceError, StoreError: as `api.run`, and for JSON what a step failed with.
    """
    from sdbuild.cli.api import run
    from sdbuild.cli.format import build_as_json
    from sdbuild.cli.reporter import Reporter

    if not is_json:
        return run(words, tasks, jobs, Reporter()).status
    with redirect_stdout(sys.stderr):
        found = run(words, tasks, jobs, Reporter(sys.stderr))
    print_json(**build_as_json(found, open_store(words)))
    return found.status
