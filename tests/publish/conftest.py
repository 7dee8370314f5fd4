"""The built store and the Hub of the end-to-end tests."""

from tests.e2e.conftest import built, hub, project  # noqa: F401
