"""Pictures from a finished bundle: what is written, and that it is the same each time."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdbuild.base.digest import digest_file

ROOT = Path(__file__).parent.parent.parent


def generate(bundle, out, *words):
    command = [sys.executable, "-m", "sdbuild", "generate", str(bundle), f"--out={out}", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [Path(line) for line in done.stdout.splitlines()]


def pixels(path):
    return np.asarray(Image.open(path))


@pytest.fixture(scope="module")
def drawn(built, tmp_path_factory):
    """Three pictures of one request, their contact sheet and their report."""
    folder = tmp_path_factory.mktemp("drawn")
    files = generate(
        built.bundle, folder / "fox.png", "--prompt=a fox", "--negative=a dog", "--seed=4",
        "--steps=3", "--count=3", "--guidance=3.5", "--scheduler=ddim",
        f"--report={folder / 'report.json'}",
    )
    return folder, files


def test_several_pictures_are_numbered_and_the_sheet_comes_last(drawn):
    folder, files = drawn

    assert files == [folder / name for name in ("fox-1.png", "fox-2.png", "fox-3.png", "fox.png")]


def test_the_contact_sheet_holds_the_pictures_side_by_side(drawn):
    _, files = drawn
    sheet = pixels(files[-1])

    assert sheet.shape == (256, 256, 3)
    assert (sheet[:128, 128:] == pixels(files[1])).all()
    assert (sheet[128:, :128] == pixels(files[2])).all()


def test_a_picture_carries_all_that_is_needed_to_draw_it_again(drawn):
    _, files = drawn
    text = Image.open(files[1]).text

    assert {k: text[k] for k in ("prompt", "negative", "seed", "steps", "guidance", "scheduler")} \
        == {"prompt": "a fox", "negative": "a dog", "seed": "5", "steps": "3", "guidance": "3.5",
            "scheduler": "ddim"}
    assert text["bundle"] == "tiny-emoji, 6 bit, original, iOS16"


def test_the_settings_in_a_picture_draw_the_same_picture_alone(built, drawn, tmp_path):
    _, files = drawn
    text = Image.open(files[1]).text
    words = [f"--{k}={text[k]}" for k in ("prompt", "negative", "seed", "steps", "guidance",
                                          "scheduler")]

    (again,) = generate(built.bundle, tmp_path / "again.png", *words)

    assert (pixels(again) == pixels(files[1])).all()


KILLED = """
import os, sys
if sys.orig_argv[1:4] == ["-m", "sdbuild", "generate"]:
    os.kill(os.getpid(), {number})
"""


@pytest.mark.parametrize("number", [9, 6])
def test_a_process_that_core_ml_kills_is_reported_with_a_way_round_it(project, monkeypatch, number):
    """As Core ML does where the Neural Engine's compiler fails, and where it finds a model wanting
    (coremltools, issues 2758 and 2757).
    """
    project.doit("build")
    (project.folder / "sitecustomize.py").write_text(KILLED.format(number=number))
    monkeypatch.setenv("PYTHONPATH", str(project.folder))

    printed = project.doit("generate", status=1, out=project.folder / "a.png")

    assert f"generate: its process was killed (signal {number})" in printed
    assert "hint: where Core ML did it, predictor=portable runs the models without it" in printed


def test_the_report_has_the_seconds_of_each_part(drawn):
    folder, _ = drawn
    report = json.loads((folder / "report.json").read_text())

    assert [picture["seed"] for picture in report["pictures"]] == [4, 5, 6]
    assert report["load_s"] > 0
    assert all(p["seconds"].keys() == {"encode", "denoise", "decode"} for p in report["pictures"])
    assert all(p["seconds"]["denoise"] > 0 for p in report["pictures"])


def test_the_report_says_what_was_drawn_with_what(drawn, built):
    folder, files = drawn
    report = json.loads((folder / "report.json").read_text())

    assert report["settings"]["prompt"] == "a fox"
    assert [picture["path"] for picture in report["pictures"]] == list(map(str, files[:3]))
    assert report["bundle"]["digest"] == digest_file(built.bundle / "manifest.json")
    assert report["predictor"] in ("coreml", "portable")
    assert report["steps_per_s"] > 0


def test_what_is_not_asked_for_is_drawn_as_the_bundle_draws_best(built, tmp_path):
    (picture,) = generate(built.bundle, tmp_path / "a.png", "--steps=1")
    text = Image.open(picture).text

    assert (text["scheduler"], text["guidance"]) == ("dpm", "5.0")
    assert text["prompt"] == "a red apple on a blue background"


def test_a_moved_bundle_draws_too(built, tmp_path):
    """It is whole in itself: nothing in it points back at the store."""
    import shutil

    moved = shutil.copytree(built.bundle, tmp_path / "somewhere else" / "bundle")

    (picture,) = generate(moved, tmp_path / "a.png", "--steps=1")

    assert pixels(picture).shape == (128, 128, 3)


def test_without_a_terminal_no_progress_is_shown(built, tmp_path):
    command = [sys.executable, "-m", "sdbuild", "generate", str(built.bundle), "--steps=2",
               f"--out={tmp_path / 'a.png'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert "step" not in done.stderr


def test_on_a_terminal_progress_is_shown(built, tmp_path):
    import os
    import pty
    import termios

    main, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    command = [sys.executable, "-m", "sdbuild", "generate", str(built.bundle), "--steps=2",
               f"--out={tmp_path / 'a.png'}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=terminal, stderr=terminal)
    os.close(terminal)
    shown = b""
    while True:
        try:
            chunk = os.read(main, 4096)
        except OSError:  # how Linux says that the other side has closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(main)

    assert process.wait() == 0
    assert b"/2 " in shown


def test_what_of_a_prompt_is_too_long_is_reported(built, tmp_path):
    """75 tokens fit between the start and the end token."""
    command = [sys.executable, "-m", "sdbuild", "generate", str(built.bundle), "--steps=1",
               f"--out={tmp_path / 'a.png'}", f"--prompt={'fox ' * 74}and a penguin"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stderr == "warning: prompt: it is too long, so this is left out: a penguin\n"
