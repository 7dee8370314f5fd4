"""Prints the log as the program does."""

import pytest

from sdbuild.cli.log import logged


@pytest.fixture(autouse=True)
def printed_logs():
    with logged():
        yield
