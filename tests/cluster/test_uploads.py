"""Uploads to the shared store: bytes weighed against making an artifact again."""

import types

import pytest

from sdbuild.cluster.uploads import Readers, is_worth_it, moved_s, readers_of
from sdbuild.engine.graph import Graph, Node

ONE = Readers(are_last=False, are_spread=False)
MANY = Readers(are_last=False, are_spread=True)
LAST = Readers(are_last=True, are_spread=False)

GIGABIT, DISK = 125e6, 1e9
"""Bytes a second."""

UNET_FP16 = 1_732_000_000
"""Bytes of the U-Net of Stable Diffusion 1.5 in fp16: 13.9 s at 125 MB/s."""


@pytest.mark.parametrize(("readers", "size_bytes", "remake_s", "bytes_s", "is_uploaded"), [
    (LAST, UNET_FP16, 0.1, GIGABIT, True),     # the bundle holds it, or waits for it
    (MANY, UNET_FP16, 13.0, GIGABIT, False),   # made again sooner than sent
    (MANY, UNET_FP16, 15.0, GIGABIT, True),
    (MANY, UNET_FP16, 13.0, DISK, True),       # a faster link sends more
    (ONE, UNET_FP16, 130.0, GIGABIT, False),   # mostly read where it was made: a tenth counts
    (ONE, UNET_FP16, 150.0, GIGABIT, True),
    (ONE, UNET_FP16, 18.0, DISK, True),
    (ONE, 2_000_000, 1.0, GIGABIT, True),      # 16 ms against a tenth of a second
])
def test_bytes_are_weighed_against_seconds(readers, size_bytes, remake_s, bytes_s, is_uploaded):
    assert is_worth_it(readers, size_bytes, remake_s, bytes_s) is is_uploaded


def test_another_machine_fetches_what_was_uploaded_and_makes_the_rest_again():
    assert moved_s(UNET_FP16, 0.0, GIGABIT) == pytest.approx(13.9, abs=0.1)
    assert moved_s(UNET_FP16, 0.0, DISK) == pytest.approx(1.7, abs=0.1)
    assert moved_s(UNET_FP16, 23.0, DISK) == 23.0


@pytest.mark.parametrize(("workers", "spread"), [
    (2, {"program"}),                                  # each checkpoint's steps stay together
    (3, {"program", "package-a", "package-b"}),        # one works for another's checkpoint
])
def test_steps_are_spread_that_several_checkpoints_share_or_that_workers_share(workers, spread):
    nodes = {name: Node(name=name, step=None, needs=needs, plan=None) for name, needs in {
        "program": (), "package-a": ("program",), "package-b": ("program",),
        "bundle-a": ("package-a",), "bundle-b": ("package-b",)}.items()}
    found = Graph(
        nodes=nodes, targets={each: (f"bundle-{each}",) for each in "ab"},
        members={each: ("program", f"package-{each}", f"bundle-{each}") for each in "ab"})
    plans = {each: types.SimpleNamespace(recipe=types.SimpleNamespace(
        sources=types.SimpleNamespace(checkpoint=each))) for each in "ab"}

    readers = readers_of(found, plans, workers)

    assert {name for name, each in readers.items()
            if each.are_spread and not name.startswith("bundle")} == spread
    assert {name for name, each in readers.items() if each.are_last} == {
        "package-a", "package-b", "bundle-a", "bundle-b"}
