"""Apple's compiler of models, where it is: with full Xcode, and not with the Command Line Tools."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

COMMAND = ("xcrun", "coremlcompiler")
MISSING = "coremlcompiler is not here: it comes with Xcode, and not with the Command Line Tools"
HINT = ("install Xcode and select it: sudo xcode-select -s /Applications/Xcode.app; or use "
        "compiler=portable, which makes equivalent models on any machine")

_PATIENCE_S = 60


def compiler_version() -> str:
    """Returns the version of Apple's compiler, or nothing where it cannot be run; asked once a
    process and choice of Xcode.

    `/usr/bin/xcrun` is on every Mac. Where no tools are selected it would ask in a window to
    install them, so `xcode-select` is asked first, which does not.
    """
    return _version(os.environ.get("PATH", ""), os.environ.get("DEVELOPER_DIR", ""))


@functools.cache
def _version(path: str, developer_dir: str) -> str:
    if not shutil.which(COMMAND[0], path=path):
        return ""
    if shutil.which("xcode-select", path=path) and not _output(("xcode-select", "-p")):
        return ""
    return _output((*COMMAND, "version"))


def compiler(wanted: str) -> str:
    """Returns the compiler that `auto` stands for: Apple's on a Mac that has it, else the portable
    one."""
    if wanted != "auto":
        return wanted
    return "apple" if sys.platform == "darwin" and compiler_version() else "portable"


def compiler_notes(wanted: str) -> tuple[str, ...]:
    """Returns what is worth knowing of the choice that `compiler` makes on this Mac."""
    if wanted == "auto" and sys.platform == "darwin" and not compiler_version():
        return (f"compiler=auto uses the portable compiler: {MISSING}",)
    return ()


def _output(command: Sequence[str]) -> str:
    """Returns what a program prints, or nothing if it is not here, fails, or hangs."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True,
                              timeout=_PATIENCE_S)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace").strip()
