"""The site of `docs/`: it builds without a warning, and its reference is written from the code."""

import re
import subprocess
import sys

import pytest

from sdbuild.cli.main import names
from sdbuild.recipe.fields import CHECK_FIELDS, DRAW_FIELDS, RECIPE_FIELDS
from sdbuild.recipe.project import BUILT_IN
from tests.pages import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site. Strict: a page that no menu has, a broken link or anchor would be an error."""
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def text_of(site, page):
    """A page without its menus and tags."""
    html = (site / page / "index.html").read_text("utf-8")
    article = re.search(r"<article.*?</article>", html, re.DOTALL)
    return re.sub(r"<[^>]+>", "", article[0])


def test_the_reference_has_every_command(site):
    text = text_of(site, "reference/commands")

    assert [name for name in names() if f"$ sdbuild {name}" not in text] == []


def test_the_reference_has_every_field(site):
    text = text_of(site, "reference/fields")

    assert [field.name for field in (*RECIPE_FIELDS, *DRAW_FIELDS, *CHECK_FIELDS)
            if f"\n{field.name}\n" not in text] == []


def test_the_reference_has_every_built_in_recipe(site):
    text = text_of(site, "reference/recipes")

    assert [path.stem for path in BUILT_IN.glob("*.toml") if f"\n{path.stem}\n" not in text] == []


def test_no_page_loads_anything_from_elsewhere(site):
    loads = r"<(?:script|link|img)[^>]*(?:src|href)=\"?(https?:[^\s\">]+)"
    found = {(page.parent.name, url) for page in site.rglob("*.html")
             for url in re.findall(loads, page.read_text("utf-8"))}

    assert found == set()


def test_links_out_of_the_docs_are_left_out_and_code_is_kept(site):
    assert "](" not in text_of(site, "faults")
    assert "test_remote_places.py" in text_of(site, "remote")
