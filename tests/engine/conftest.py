"""What is logged is printed, as the program prints it."""

import pytest

from sdbuild.cli.log import logged


@pytest.fixture(autouse=True)
def printed_logs():
    with logged():
        yield
