"""Real file systems: clones where there are any, links or copies elsewhere, damage kept apart."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sdbuild.base.errors import StoreError
from sdbuild.reports.du import pool, usage
from sdbuild.reports.gc import garbage
from sdbuild.reports.verify import verify
from sdbuild.store import Store, disk
from tests.engine.chains import chain, placed

BIG = "x" * 300_000


@pytest.fixture(params=["btrfs", "xfs"], scope="module")
def cloning(request, tmp_path_factory):
    """A file system with clones, in a file."""
    if os.geteuid() or not shutil.which(f"mkfs.{request.param}"):
        pytest.skip("needs root and the tools of the file system")
    folder = tmp_path_factory.mktemp(request.param)
    image, place = folder / "image", folder / "mounted"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run([f"mkfs.{request.param}", "-q", image], check=True, capture_output=True)
    if subprocess.run(["mount", "-o", "loop", image, place], capture_output=True).returncode:
        pytest.skip("cannot be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.fixture
def mounted(cloning, request):
    """A folder of a test's own on it."""
    folder = cloning / request.node.originalname
    folder.mkdir()
    return folder


def damage(path):
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"damage")


def test_clones_share_the_blocks_and_keep_damage_to_themselves(mounted):
    store = Store(mounted / "store")
    made = chain(store, mounted, weights=BIG)
    place = placed(store, made, mounted / "bundle")
    weights = place / "Unet.mlmodelc" / "weights"
    assert weights.stat().st_nlink == 1
    (found,) = usage(store).bundles
    assert found.linked_bytes == 0
    assert found.cloned_bytes >= len(BIG)

    damage(weights)

    assert not store.is_laid_out(made["bundle"], place)
    report = verify(store)
    assert (report.faults, report.bundles) == ((), (str(weights),))
    placed(store, made, place)
    assert weights.read_text().endswith(BIG)


def test_what_a_clone_still_holds_is_not_counted_as_freed(mounted):
    store = Store(mounted / "store")
    made = chain(store, mounted, weights=BIG)
    placed(store, made, mounted / "bundle").rename(mounted / "elsewhere")

    found = garbage(store)

    held = sum(pool(store)[entry.digest].disk_bytes for entry in made["bundle"].tree)
    assert found.later_bytes == held
    assert found.freed_bytes + found.later_bytes == sum(f.disk_bytes for f in found.files)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_a_bundle_on_another_file_system_is_a_copy(tmp_path):
    other = Path("/dev/shm") / f"sdbuild-test-{os.getpid()}"
    if other.parent.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    store = Store(tmp_path / "store")
    made = chain(store, tmp_path)
    try:
        place = placed(store, made, other / "bundle")

        assert (place / "Unet.mlmodelc" / "weights").stat().st_nlink == 1
        assert store.is_laid_out(made["bundle"], place)
        damage(place / "Unet.mlmodelc" / "weights")
        assert verify(store).faults == ()
    finally:
        shutil.rmtree(other)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL])
def test_where_modes_and_times_cannot_be_set_files_are_read_and_trusted_all_the_same(
    tmp_path, monkeypatch, number,
):
    """As on FAT or on some network drives: slower, and never wrong."""
    def refuse(*_args, **_more):
        raise OSError(number, os.strerror(number))
    monkeypatch.setattr(disk.Path, "chmod", refuse)
    monkeypatch.setattr(disk.os, "utime", refuse)
    monkeypatch.setattr(disk.os, "link", refuse)
    store = Store(tmp_path / "store")
    made = chain(store, tmp_path)
    place = placed(store, made, tmp_path / "bundle")
    assert store.is_laid_out(made["bundle"], place)

    (place / "Unet.mlmodelc" / "weights").write_text("eno")

    assert not store.is_laid_out(made["bundle"], place)
    assert store.has_content(made["bundle"])


def test_a_disk_that_is_full_halfway_through_a_copy_leaves_no_half(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    def half(source, target):
        Path(target).write_bytes(Path(source).read_bytes()[:3])
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(disk, "_clone", lambda source, target: False)
    monkeypatch.setattr(disk.os, "link", refuse)
    monkeypatch.setattr(disk.shutil, "copyfile", half)
    store = Store(tmp_path / "store")
    made = chain(store, tmp_path)

    with pytest.raises(StoreError, match="No space left") as caught:
        placed(store, made, tmp_path / "bundle")

    assert caught.value.hint == "free some space, or choose another location with bundle=FOLDER"
    assert {path.name for path in tmp_path.iterdir()} & {"bundle", ".bundle"} == set()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".bundle-")]


@pytest.fixture
def read_only(tmp_path):
    """A store on a place that cannot be written to."""
    if os.geteuid() or not sys.platform.startswith("linux"):
        pytest.skip("needs root, to mount")
    store, place = Store(tmp_path / "store"), tmp_path / "mounted"
    made = chain(store, tmp_path)
    place.mkdir()
    if subprocess.run(["mount", "--bind", store.root, place], capture_output=True).returncode:
        pytest.skip("cannot be mounted here")
    subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
    yield Store(place), made
    subprocess.run(["umount", place], check=True)


def test_from_a_read_only_store_bundles_are_laid_out_and_nothing_is_forgotten(
    read_only, tmp_path,
):
    store, made = read_only

    with store.in_use("build"):
        place = placed(store, made, tmp_path / "bundle")

    assert store.is_laid_out(made["bundle"], place)
    assert verify(store).is_whole
    with pytest.raises(StoreError, match="Read-only file system"):
        store.forget(made["bundle"].key)
    with pytest.raises(StoreError, match="Read-only file system"), store.alone("gc"):
        pass
