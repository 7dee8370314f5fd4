"""Uploads to the shared store: bytes weighed against making an artifact again."""

import pytest

from sdbuild.cluster.uploads import Readers, is_worth_it

ONE = Readers(are_last=False, are_many=False)
MANY = Readers(are_last=False, are_many=True)
LAST = Readers(are_last=True, are_many=False)

UNET_FP16 = 1_732_000_000
"""Bytes of the U-Net of Stable Diffusion 1.5 in fp16: 13.9 s at 125 MB/s."""


@pytest.mark.parametrize(("readers", "size_bytes", "remake_s", "is_uploaded"), [
    (LAST, UNET_FP16, 0.1, True),     # the bundle holds it, or waits for it
    (MANY, UNET_FP16, 13.0, False),   # made again sooner than sent
    (MANY, UNET_FP16, 15.0, True),
    (ONE, UNET_FP16, 130.0, False),   # mostly read where it was made: a tenth of the time counts
    (ONE, UNET_FP16, 150.0, True),
    (ONE, 2_000_000, 1.0, True),      # 16 ms against a tenth of a second
])
def test_bytes_are_weighed_against_seconds(readers, size_bytes, remake_s, is_uploaded):
    assert is_worth_it(readers, size_bytes, remake_s) is is_uploaded


def test_a_faster_link_sends_more():
    assert not is_worth_it(MANY, UNET_FP16, 13.0)
    assert is_worth_it(MANY, UNET_FP16, 13.0, link_bytes_s=1.25e9)
