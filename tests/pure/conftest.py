"""An empty store."""

import pytest

from sdbuild.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")
