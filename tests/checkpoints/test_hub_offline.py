"""A partial download in the Hub's cache is not mistaken for a whole repository."""

import pytest

from sdbuild.base.errors import SourceError
from sdbuild.checkpoints.hub.hub import Hub


@pytest.mark.parametrize("ask", [
    lambda hub: hub.identity("unet", str), lambda hub: hub.config("unet"),
    lambda hub: hub.tensors("unet"), lambda hub: hub.resources(),
])
def test_of_a_file_that_the_cache_lacks_it_is_said_that_only_the_cache_can_be_reached(ask):
    hub = Hub(f"hub:a/b@{'0' * 40}", {"README.md": "git:0"}, {}, is_whole=False)

    with pytest.raises(SourceError, match="of which only the cache can be reached: "):
        ask(hub)
