"""Apple's compiler is taken where it runs: `xcrun` alone, which every Mac has, does not mean it.

The errors are those of xcrun and xcode-select as users report them (apple/ml-stable-diffusion,
issues 17 and 28).
"""

import re

import pytest

from sdbuild.base import apple
from sdbuild.base.errors import StepError, ToolMissing
from sdbuild.engine.stage import Job
from sdbuild.recipe.recipe import load
from sdbuild.steps.compile import STAGE

XCODE = "/Applications/Xcode.app/Contents/Developer"
TOOLS = "/Library/Developer/CommandLineTools"
STUB = """#!/bin/sh
echo "{name} $*" >> "$STUB_LOG"
{body}
"""
NOT_FOUND = ('echo "xcrun: error: unable to find utility \\"coremlcompiler\\", not a developer '
             'tool or in PATH" >&2; exit 72')


class Mac:
    """A machine on which some programs are in the path, each written as a line of shell."""

    def __init__(self, folder, monkeypatch):
        self.bin, self.log = folder / "bin", folder / "log"
        self.bin.mkdir()
        self.log.write_text("")
        monkeypatch.setenv("PATH", f"{self.bin}:/usr/bin:/bin")
        monkeypatch.setenv("STUB_LOG", str(self.log))
        monkeypatch.delenv("DEVELOPER_DIR", raising=False)
        monkeypatch.setattr(apple.sys, "platform", "darwin")

    def program(self, name, body):
        (self.bin / name).write_text(STUB.format(name=name, body=body))
        (self.bin / name).chmod(0o755)

    @property
    def calls(self):
        return self.log.read_text().splitlines()


@pytest.fixture
def mac(tmp_path, monkeypatch):
    return Mac(tmp_path, monkeypatch)


def test_xcode_s_compiler_is_taken(mac):
    mac.program("xcode-select", f"echo {XCODE}")
    mac.program("xcrun", "echo 3500.32.1")

    assert apple.compiler_version() == "3500.32.1"
    assert (apple.compiler("auto"), apple.compiler_notes("auto")) == ("apple", ())


def test_command_line_tools_alone_leave_the_portable_compiler_with_a_note(mac):
    mac.program("xcode-select", f"echo {TOOLS}")
    mac.program("xcrun", NOT_FOUND)

    recipe = load({"model": "tiny-emoji"})

    assert recipe.packaging.compiler == "portable"
    assert recipe.packaging.notes == (
        "compiler=auto uses the portable compiler: coremlcompiler is not here: it comes with "
        "Xcode, and not with the Command Line Tools",)


def test_what_the_user_chose_needs_no_note(mac):
    mac.program("xcrun", NOT_FOUND)

    assert load({"compiler": "portable"}).packaging.notes == ()


def test_without_any_tools_no_window_asks_to_install_them(mac):
    mac.program("xcode-select", 'echo "xcode-select: error: unable to get active developer '
                                'directory" >&2; exit 2')
    mac.program("xcrun", "echo 'a window opens'")

    assert apple.compiler("auto") == "portable"
    assert mac.calls == ["xcode-select -p"]


def test_the_compiler_is_asked_for_once(mac):
    mac.program("xcode-select", f"echo {XCODE}")
    mac.program("xcrun", "echo 3500.32.1")

    for _ in range(20):
        assert STAGE.other_tools({"compiler": "apple"}) == {"coremlcompiler": "3500.32.1"}
    assert load({}).packaging.compiler == "apple"

    assert mac.calls == ["xcode-select -p", "xcrun coremlcompiler version"]


def test_another_xcode_is_asked_anew(mac, monkeypatch):
    mac.program("xcrun", 'echo "${DEVELOPER_DIR:-3500}"')
    assert apple.compiler_version() == "3500"

    monkeypatch.setenv("DEVELOPER_DIR", "3600")

    assert apple.compiler_version() == "3600"


def test_apples_compiler_that_is_asked_for_and_missing_says_what_helps(mac):
    mac.program("xcrun", NOT_FOUND)

    with pytest.raises(ToolMissing, match="comes with Xcode, and not with the Command") as raised:
        STAGE.other_tools({"compiler": "apple"})

    assert "xcode-select -s" in raised.value.hint
    assert "compiler=portable" in raised.value.hint


def test_a_model_that_apples_compiler_refuses_is_named(mac, tmp_path):
    """The compiler's output need not be UTF-8."""
    mac.program("xcrun", "printf 'coremlc: error: caf\\351 is not valid' >&2; exit 1")
    (tmp_path / "package" / "Unet.mlpackage").mkdir(parents=True)
    job = Job(params={"compiler": "apple"}, inputs={"package": tmp_path / "package"},
              output=tmp_path / "out")

    with pytest.raises(StepError, match=re.escape(
            "Unet: xcrun coremlcompiler compile: exit status 1\n"
            "coremlc: error: caf\ufffd is not valid")) as raised:
        STAGE.run(job)

    assert raised.value.hint == "compiler=portable compiles without Apple's tools"


def test_elsewhere_nothing_is_asked(mac, monkeypatch):
    monkeypatch.setattr(apple.sys, "platform", "linux")
    mac.program("xcrun", "echo 3500.32.1")

    assert (apple.compiler("auto"), apple.compiler_notes("auto"), mac.calls) == ("portable", (), [])


def test_a_program_that_is_no_program_counts_as_missing(mac):
    mac.program("xcrun", "exit 0")
    (mac.bin / "xcrun").write_bytes(b"\x7fELF of another machine")

    assert apple.compiler_version() == ""
