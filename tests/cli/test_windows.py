"""Windows is refused at once, with what to use in its place."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("first", ["import sdbuild", "from sdbuild.cli.main import main",
                                   "import runpy; runpy.run_path('dodo.py')"])
def test_windows_is_refused_with_a_word_for_wsl(first):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.platform = 'win32'; {first}"], cwd=ROOT,
        capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "not on Windows" in done.stderr and "wsl --install" in done.stderr
    assert "Traceback" not in done.stderr
