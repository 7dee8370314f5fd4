"""The oldest versions that are run: the lower bounds of `pyproject.toml`."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("oldest", ROOT / "scripts" / "oldest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_requirement_is_pinned_at_its_lower_bound(tool):
    found = tool.oldest(["a>=1.2", "b-c>=3.0.1,<4", "d[x]<9,>=5"], [])

    assert list(found) == ["a==1.2", "b-c==3.0.1", "d==5"]


def test_torch_stays_as_it_is_pinned(tool):
    found = tool.oldest(["torch>=2.7,<2.15"], ["# torch==1.0", "numpy==2.4.6", "torch==2.13.0"])

    assert list(found) == ["torch==2.13.0"]


def test_a_requirement_without_a_lower_bound_is_named(tool):
    with pytest.raises(ValueError, match=r"'numpy<3' has no lower bound"):
        list(tool.oldest(["numpy<3"], []))


def test_the_oldest_constraints_are_those_of_pyproject(tool):
    """If not: `python scripts/oldest.py > constraints-oldest.txt`."""
    assert (ROOT / "constraints-oldest.txt").read_text("utf-8") == tool.constraints(ROOT)


@pytest.mark.parametrize("words", [[], ["latest"]])
def test_other_versions_than_the_oldest_and_newest_are_refused(words):
    done = subprocess.run(
        [ROOT / "scripts" / "versions", *words], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (2, "usage: scripts/versions oldest|newest\n")
