"""Zips from outside: whatever is in them stays in the folder, ends, and is what its sum says."""

import stat
import struct
import zipfile
from collections import namedtuple

import pytest

from sdbuild.base.errors import SourceError
from sdbuild.base.zips import Zip


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.zip"


def write(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members:
            file.writestr(name, content)


def refused(path, match, into=None):
    with pytest.raises(SourceError, match=match):
        Zip(path, SourceError).extract_all(into or path.parent / "out")


def test_files_are_unpacked_and_what_systems_add_is_not(path, tmp_path):
    write(path, [("b/", b""), ("b/c.mil", b"program"), ("__MACOSX/b/._c.mil", b"x"),
                 ("b/.DS_Store", b"x")])
    (tmp_path / "out").mkdir()

    found = Zip(path, SourceError)
    found.extract_all(tmp_path / "out")

    assert found.names == ("b/c.mil",)
    assert [p.relative_to(tmp_path / "out").as_posix()
            for p in (tmp_path / "out").rglob("*") if p.is_file()] == ["b/c.mil"]
    assert found.sha256("b/c.mil") == (  # printf program | sha256sum
        "1310ca2c8932dbd118668bd97442558a3e1f546b5e15c69699dfbd6024f548d8")


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a\\..\\x"])
def test_a_name_that_leads_out_is_refused(path, name):
    write(path, [(name, b"x")])

    refused(path, "leads out of it")


def test_a_link_is_refused(path):
    """weichsel/ZIPFoundation, issue 282: a link to /etc/hosts is unpacked as one."""
    link = zipfile.ZipInfo("a/weights")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    write(path, [(link, b"/etc/hosts")])

    refused(path, "is a link")


def test_a_password_and_an_unknown_method_are_refused(path, tmp_path):
    (tmp_path / "out").mkdir()
    for flags, method in ((1, 0), (0, 99)):
        write(path, [("a", b"x")], zipfile.ZIP_STORED)
        content = bytearray(path.read_bytes())
        for at, offset in ((content.index(b"PK\3\4"), 6), (content.index(b"PK\1\2"), 8)):
            struct.pack_into("<HH", content, at + offset, flags, method)
        path.write_bytes(content)

        refused(path, "not a zip that can be read", tmp_path / "out")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA,
                                    zipfile.ZIP_STORED])
def test_damaged_content_is_refused_whatever_packed_it(path, tmp_path, method):
    """MochiDiffusion, issue 124: an upload that is damaged."""
    (tmp_path / "out").mkdir()
    for at in (40, 60, 100):
        write(path, [("a", bytes(range(256)) * 8)], method)
        content = bytearray(path.read_bytes())
        content[at:at + 12] = bytes(byte ^ 0x55 for byte in content[at:at + 12])
        path.write_bytes(content)

        refused(path, "not a zip that can be read", tmp_path / "out")


def test_a_name_of_a_file_and_of_a_folder_is_refused(path, tmp_path):
    (tmp_path / "out").mkdir()
    write(path, [("a", b"x"), ("a/b", b"x")])

    refused(path, "that of a file and of a folder", tmp_path / "out")


def test_more_than_any_bundle_has_is_refused_before_anything_is_unpacked(path):
    """Its directory says so: what is unpacked never exceeds that."""
    write(path, [("a", b"x")], zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\1\2")
    struct.pack_into("<I", content, at + 24, 0xFFFFFFFE)
    entry = content[at:content.index(b"PK\5\6")]
    content[at:at] = entry * 16
    end = content.index(b"PK\5\6")
    struct.pack_into("<HHI", content, end + 8, 17, 17, len(entry) * 17)
    path.write_bytes(content)

    refused(path, "17 files of .* more than any bundle has")


def test_a_disk_without_room_is_told_before_anything_is_unpacked(path, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(100, 99, 1))
    (tmp_path / "out").mkdir()
    write(path, [("a", b"xx")])

    refused(path, "2 B unpacked, and 1 B free", tmp_path / "out")
    assert not [*(tmp_path / "out").iterdir()]
