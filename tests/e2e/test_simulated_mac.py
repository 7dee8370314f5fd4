"""The whole chain on a simulated Mac: `pytest --simulate-mac tests/e2e/test_simulated_mac.py`."""

import sys

import pytest

from tests.e2e.project import run

pytestmark = pytest.mark.skipif("not config.getoption('simulate_mac')", reason="--simulate-mac")
ASK = "import sys; from sdbuild.base import machine; print(machine.sys.platform, sys.platform, " \
      "*machine._limits())"


def test_our_code_sees_a_mac_where_libraries_do_not():
    assert run([sys.executable, "-c", ASK], 0) == f"darwin {sys.platform}\n"


def test_a_bundle_is_built_checked_and_drawn_from(new_project):
    printed = new_project.doit("-n", "2", "build")

    assert "compiler=auto uses the portable compiler" in printed
    assert (new_project.bundle / ".DS_Store").exists()
    assert (new_project.cache / "records" / ".DS_Store").exists()
    assert new_project.ran("build", "check") == {"originals", "pictures"} | {
        f"parity:{part}" for part in ("text_encoder", "unet", "vae_decoder", "vae_encoder")}
    picture = new_project.folder / "a.png"
    assert "hint: predictor=portable" in new_project.doit("generate", status=1, out=picture)
    run([sys.executable, "-m", "sdbuild", "generate", str(new_project.bundle), "--steps=1",
         "--predictor=portable", f"--out={picture}"], 0)
    assert picture.read_bytes().startswith(b"\x89PNG")
