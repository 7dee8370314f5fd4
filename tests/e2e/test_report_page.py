"""The page of a report in a real browser: Chromium without a screen, on a desk and on a phone.

`--accept` writes the screenshot of the README, of a page that only it makes.
"""

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pages import ROOT
from tests.reports.page.reading import captions, parsed

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SHOT = ROOT / "docs" / "images" / "report.png"
DESK, PHONE = (1100, 1240), (500, 900)  # Chromium has no narrower window
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--hide-scrollbars")

BROKEN_WORDS = """<script>onload = () => {
  for (const closed of document.querySelectorAll("details")) closed.open = true;
  const found = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; node = walk.nextNode();)
    if (!node.parentElement.closest("dl, pre, .digest"))
      for (const word of node.data.matchAll(/[\\p{L}\\p{N}]+/gu)) {
        const range = document.createRange();
        range.setStart(node, word.index);
        range.setEnd(node, word.index + word[0].length);
        const rows = new Set(Array.from(range.getClientRects(), at => Math.round(at.top)));
        if (rows.size > 1) found.push(word[0]);
      }
  document.title = "broken: " + found.join(" ");
}</script>"""
"""Names the words that are on two lines, but for those of places, commands and digests."""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium: apt-get install chromium")]


@pytest.fixture(scope="module")
def page(built, tmp_path_factory, request):
    """The page on two bundles; with `--accept` the README's, whose images take minutes: three
    bundles beside the original."""
    folder = tmp_path_factory.mktemp("page")
    if request.config.getoption("--accept"):
        project = built.copy(folder)
        bundles = [folder / f"{bits}-bit" for bits in ("none", "6", "2")]
        for bundle in bundles:
            bits = bundle.name.partition("-")[0]
            project.doit("build", "pictures", f"quant={bits}", "chunk=1", bundle=bundle)
        project.sdbuild("report", "--losses=0", *map(str, bundles), bundle=None,
                        report=folder / "page.html")
        return folder / "page.html"
    built.sdbuild("report", str(built.folder / "fp16"), str(built.bundle), "count=3", "seed=1",
                  bundle=None, report=folder / "page.html")
    return folder / "page.html"


def browse(*words):
    with tempfile.TemporaryDirectory() as profile:
        return subprocess.run([CHROMIUM, *QUIET, f"--user-data-dir={profile}", *words],
                              capture_output=True, text=True, check=True, timeout=300).stdout


def shot(page, out, size, *words):
    browse(f"--window-size={size[0]},{size[1]}", f"--screenshot={out}", *words, page.as_uri())
    return np.asarray(Image.open(out).convert("RGB"), int)


def test_the_page_is_shown_on_a_desk_in_light_and_dark(page, tmp_path, request):
    light = shot(page, tmp_path / "light.png", DESK)
    dark = shot(page, tmp_path / "dark.png", DESK, "--blink-settings=preferredColorScheme=0")

    if request.config.getoption("--accept"):
        Image.open(tmp_path / "light.png").convert("P", palette=Image.Palette.ADAPTIVE).save(
            SHOT, optimize=True)
    assert light.shape == dark.shape == (DESK[1], DESK[0], 3)
    assert light[5, 5].min() > 200 and dark[5, 5].max() < 60  # the corner is paper
    assert len(np.unique(light.reshape(-1, 3), axis=0)) > 1000  # images are there


def test_nothing_is_wider_than_a_phone(page, tmp_path):
    found = shot(page, tmp_path / "phone.png", PHONE)

    margin = found[:, -12:].reshape(-1, 3)
    assert (np.abs(margin - found[5, 5]).max(axis=1) < 3).all()  # the margin on the right is empty


def test_no_word_is_broken_on_a_phone(page, tmp_path):
    shown = page.read_text("utf-8")
    policy = shown.index("<meta http-equiv")
    (tmp_path / "page.html").write_text(
        shown[:policy] + BROKEN_WORDS + shown[shown.index(">", policy) + 1:], "utf-8")

    found = browse(f"--window-size={PHONE[0]},{PHONE[1]}", "--dump-dom",
                   (tmp_path / "page.html").as_uri())

    assert re.findall("<title>broken: (.*?)</title>", found) == [""]


def test_the_browser_reads_the_figures_of_the_json(page):
    shown = captions(parsed(browse("--dump-dom", page.as_uri())))
    figures = json.loads(Path(page).with_suffix(".json").read_text())
    judged = [v for v in figures["variants"] if v["verdict"] != "reference"]

    assert [row[1:] for row in shown] == [
        [f"{each['label']} {image['psnr_db']:.1f} dB {image['verdict']}"
         for each in judged for image in (each["images"][number],)]
        for number in range(len(shown))]
    assert judged and shown
