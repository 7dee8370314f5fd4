"""Broken and hostile packages are refused before anything outside of them is touched."""

import json
import os
import shutil

import pytest

from sdbuild.base.errors import InvalidProgram
from sdbuild.mil.files.package import model_file, read_package
from tests.mil.hostile import bounded

PLACE = "com.apple.CoreML/model.mlmodel"


def named(place, package):
    """Makes the manifest of `package` name `place`."""
    (package / "Manifest.json").write_text(json.dumps(
        {"itemInfoEntries": {"a": {"path": place}}, "rootModelIdentifier": "a"}))
    return package


@pytest.mark.parametrize("content", [
    "", "[]", "null", "3", '"a"', "{", "\x00", "[" * 200_000, '{"a":' * 200_000,
    '{"rootModelIdentifier": "a"}',
    '{"rootModelIdentifier": ["a"], "itemInfoEntries": {}}',
    '{"rootModelIdentifier": "a", "itemInfoEntries": []}',
    '{"rootModelIdentifier": "a", "itemInfoEntries": {"a": "path"}}',
    '{"rootModelIdentifier": 0, "itemInfoEntries": [{}]}',
    "1" * 5000,
], ids=range(15))
def test_manifests_that_are_none_are_refused(content, tmp_path):
    (tmp_path / "Manifest.json").write_text(content)

    with bounded(), pytest.raises(InvalidProgram, match=r"Manifest\.json: not a package manifest"):
        read_package(tmp_path)


@pytest.mark.parametrize("place", [
    "../../secret.mlmodel", "/etc/passwd", "..", "", ".", PLACE + "/x", "a" * 300, "a\0b",
    "\ud800", ["a"], None, {}, 1,
], ids=repr)
def test_manifests_that_name_no_file_of_the_package_are_refused(place, tmp_path):
    package = tmp_path / "m.mlpackage"
    (package / "Data").mkdir(parents=True)
    (tmp_path / "secret.mlmodel").write_bytes(b"")

    with pytest.raises(InvalidProgram, match=r"which is not a file of the package|"
                       r"a control character|half a surrogate pair"):
        read_package(named(place, package))


def test_links_that_lead_out_of_the_package_or_in_a_circle_are_refused(source, tmp_path):
    package = tmp_path / "m.mlpackage"
    shutil.copytree(source, package)
    file = model_file(package)
    outside = shutil.move(file, tmp_path / "outside.mlmodel")

    for target in (outside, file):
        file.unlink(missing_ok=True)
        file.symlink_to(target)
        with pytest.raises(InvalidProgram, match="which is not a file of the package"):
            read_package(package)


def test_a_weight_file_that_is_a_link_out_of_the_package_is_refused(source, tmp_path):
    package = tmp_path / "m.mlpackage"
    shutil.copytree(source, package)
    weights = read_package(package).root / "weights"
    outside = shutil.move(weights, tmp_path / "outside")

    weights.symlink_to(outside)
    with pytest.raises(InvalidProgram, match="is a link that leads out of the folder"):
        read_package(package).reader("@model_path/weights/weight.bin")

    weights.unlink()
    weights.mkdir()
    (weights / "weight.bin").symlink_to(weights / "weight.bin")
    with pytest.raises(InvalidProgram, match="there is no such weight file"):
        read_package(package).reader("@model_path/weights/weight.bin")


@pytest.mark.parametrize("name", [
    "@model_path/../secret", "/etc/passwd", "", "@model_path", "@model_path/..",
    "weights/weight.bin", "@model_path/weights/\0", "@model_path/a/../../../b",
])
def test_names_of_weight_files_do_not_lead_out_of_the_package(name, source):
    with pytest.raises(InvalidProgram, match="expected one below @model_path/"):
        read_package(source).reader(name)


@pytest.mark.parametrize("name", ["weights", "weights/none.bin", "a" * 300, "weights/weight.bin/x"])
def test_weight_files_that_are_no_files_are_refused(name, source):
    with pytest.raises(InvalidProgram, match="there is no such weight file"):
        read_package(source).reader(f"@model_path/{name}")


@pytest.mark.parametrize(("file", "size"), [("model", 1 << 31), ("manifest", 1 << 34)])
def test_files_larger_than_a_message_or_a_manifest_are_not_read(file, size, source, tmp_path):
    package = tmp_path / "m.mlpackage"
    shutil.copytree(source, package)
    place = model_file(package) if file == "model" else package / "Manifest.json"
    os.truncate(place, size)  # sparse

    with bounded(), pytest.raises(InvalidProgram, match=f"{size} bytes, expected at most"):
        read_package(package)
