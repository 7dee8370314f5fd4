"""Checkpoints that tests of several families read."""

import pytest

from tests.tiny_checkpoints import write_checkpoint


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The checkpoints of a base model and a refiner, by their families."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {family: write_checkpoint(folder / family, family)
            for family in ("sdxl", "sdxl-refiner")}
