"""Doctor: what it finds of a machine, and what it says helps."""

import json
import shutil
import subprocess
import sys
import tomllib
from collections import namedtuple
from email.message import Message
from importlib import metadata

import pytest

from sdbuild.base import machine
from sdbuild.cli import doctor
from sdbuild.cli.main import main

Usage = namedtuple("Usage", "total used free")


def found(cache, name):
    return next(f for f in doctor.examine(cache) if f.name == name)


def pretend(monkeypatch, versions):
    """Installed packages have these versions; None: it is not installed."""
    true = metadata.version

    def version(name):
        if versions.get(name, "") is None:
            raise metadata.PackageNotFoundError(name)
        return versions.get(name) or true(name)
    monkeypatch.setattr(metadata, "version", version)


@pytest.fixture(autouse=True)
def as_in_pyproject(monkeypatch):
    """The requirements of this tree, whenever it was installed."""
    project = tomllib.loads((doctor.IMPORT_ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    message = Message()
    message["Requires-Python"] = project["requires-python"]
    for requirement in project["dependencies"]:
        message["Requires-Dist"] = requirement
    for requirement in project["optional-dependencies"]["networks"]:
        message["Requires-Dist"] = f'{requirement} ; extra == "networks"'
    monkeypatch.setattr(metadata, "metadata", lambda name: message)


def test_this_machine_can_build(tmp_path, capsys):
    assert main(["doctor", "--cache", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith("can build.\n")


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    pretend(monkeypatch, {"click": None})

    click = found(tmp_path, "click")

    assert (click.state, click.found) == ("bad", "missing")
    assert click.hint == "pip install 'click>=8.1' -c constraints.txt"


def test_without_the_networks_known_architectures_can_be_built(tmp_path, monkeypatch, capsys):
    pretend(monkeypatch, dict.fromkeys((
        "torch", "coremltools", "diffusers", "transformers", "tokenizers", "regex", "Pillow")))

    torch = found(tmp_path, "torch")

    assert (torch.state, torch.found) == ("note", "missing")
    assert torch.hint.endswith("pip install 'sdbuild[networks]'")
    assert main(["doctor", "--cache", str(tmp_path)]) == 0


def test_a_package_out_of_its_range_ends_with_status_1(tmp_path, monkeypatch, capsys):
    pretend(monkeypatch, {"coremltools": "8.3.0"})

    status = main(["doctor", "--cache", str(tmp_path)])

    printed = capsys.readouterr().out
    assert status == 1
    assert "bad   coremltools       8.3.0  (in <10,>=9.0, tested 9.0)" in printed
    assert printed.endswith("cannot build yet.\n")


def test_both_ends_of_a_range_that_were_tested_are_reported(tmp_path):
    pins = [(doctor.IMPORT_ROOT / name).read_text() for name in
            ("constraints-oldest.txt", "constraints.txt")]
    oldest, newest = (text.split("\ntransformers==")[1].split("\n")[0] for text in pins)

    expected = found(tmp_path, "transformers").expected

    assert expected.endswith(f", tested {oldest} and {newest}")


def test_a_python_out_of_range_says_how_to_get_another(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.14.1")

    python = found(tmp_path, "Python")

    assert python.state == "bad"
    assert "scripts/setup" in python.hint


def test_sdbuild_itself_has_to_be_installed(tmp_path, monkeypatch):
    def nothing(name):
        raise metadata.PackageNotFoundError(name)
    monkeypatch.setattr(metadata, "metadata", nothing)

    assert found(tmp_path, "sdbuild").hint.startswith("scripts/setup")


@pytest.mark.parametrize("version, bounds, expected", [
    ("2.13.0+cpu", ">=2.7,<2.15", True), ("2.15.0", ">=2.7,<2.15", False),
    ("10.0", ">=9.0,<10", False), ("9", ">=9.0", True), ("0.9", ">=0.34", False),
    ("2.6.9", ">=2.7", False), ("5.0", "!=5", False), ("1.2", "", True),
    ("2.0rc1", ">=2.0", False), ("2.15.0.dev20260801", "<2.15", False), ("2.1rc1", ">=2.0", True),
    ("2.7.0.post1", ">=2.7", True), ("1!1.0", "<2", False), ("not a version", ">=1", False),
])
def test_versions_are_compared_as_pep_440_has_it(version, bounds, expected):
    assert doctor.is_within(version, bounds) is expected


@pytest.mark.parametrize("free, state", [
    (10**8, "bad"), (10**9, "note"), (10**11, "ok"),
])
def test_room_is_asked_for_where_the_cache_will_be(tmp_path, monkeypatch, free, state):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(free, 0, free))

    disk = found(tmp_path / "not" / "yet", "disk")

    assert disk.state == state
    assert disk.found.endswith(f"free at {tmp_path}")
    assert ("cache=FOLDER" in disk.hint) == (state != "ok")


def test_a_cache_that_cannot_be_written_to_is_bad(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.os, "access", lambda place, mode: False)

    assert found(tmp_path, "disk").state == "bad"


def test_memory_says_how_much_of_it_steps_use(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "machine_bytes", lambda: 1_500_000_000)
    monkeypatch.setattr(doctor, "machine_bytes", lambda: 1_500_000_000)

    finding = found(tmp_path, "memory")

    assert finding.state == "note"
    assert finding.found == "1.5 GB, of which steps use 1.0 GB"


@pytest.mark.parametrize("platform, printed, state, text", [
    ("linux", "", "ok", "sdbuild's own"), ("darwin", "", "note", "sdbuild's own"),
    ("darwin", "3500.1", "ok", "Apple's coremlcompiler 3500.1"),
])
def test_the_compiler_is_apples_where_xcode_is(
    tmp_path, monkeypatch, platform, printed, state, text,
):
    monkeypatch.setattr(doctor.sys, "platform", platform)
    monkeypatch.setattr(doctor, "compiler_version", lambda: printed)

    compiler = found(tmp_path, "compiler")

    assert compiler.state == state
    assert text in compiler.found


def test_json_has_a_record_for_each_finding(tmp_path, capsys):
    main(["doctor", "--json", "--cache", str(tmp_path)])

    printed = json.loads(capsys.readouterr().out)["findings"]
    assert {"Python", "torch", "memory", "disk", "Core ML"} <= {entry["name"] for entry in printed}
    assert all(entry["state"] in ("ok", "note", "bad") for entry in printed)


def test_nothing_heavy_is_imported(tmp_path):
    code = (
        "import sys\nfrom sdbuild.cli.main import main\n"
        f"main(['doctor', '--cache', {str(tmp_path)!r}])\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    modules = set(done.stdout.splitlines()[-1].split())
    assert "sdbuild.cli.doctor" in modules
    assert not {"numpy", "torch", "coremltools", "google"} & modules
