"""A small 1.x as a folder and as a single file, for tests that only read it."""

import pytest
from diffusers.loaders import single_file_utils as theirs

from tests.checkpoints.test_single_file import download, joined
from tests.single_files import config_of, small_checkpoint


@pytest.fixture(scope="package")
def first(tmp_path_factory):
    """A small 1.x: its folder, the states of its networks and the tensors of its single file."""
    folder, states = small_checkpoint(tmp_path_factory.mktemp("first") / "folder", "clip")
    return folder, states, joined(folder, states, "clip")


@pytest.fixture(scope="package")
def unet(first, tmp_path_factory):
    """Returns the folder's U-Net as the download step writes it."""
    return download(first[0], tmp_path_factory.mktemp("unet") / "out", "unet")


@pytest.fixture(scope="package")
def wanted_unet(first):
    """The U-Net of the file, as diffusers' own conversion reads it."""
    folder, _, tensors = first
    return theirs.convert_ldm_unet_checkpoint(dict(tensors), config_of(folder, "unet"))
