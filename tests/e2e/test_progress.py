"""Progress of a build, on a terminal and elsewhere."""

import sys

import pytest

from tests.e2e.project import ROOT
from tests.terminal import COLUMNS, lines, run, shown

NAME = "palettize:unet"


def build(project, *words, **environment):
    """Builds in a terminal; what it wrote."""
    command = [sys.executable, "-m", "sdbuild", *project.command("build", *words)]
    status, written = run(command, cwd=ROOT, env=environment)
    assert status == 0, written
    return written


def test_a_terminal_shows_one_live_line_that_counts_the_tensors_of_a_step(project):
    written = build(project, NAME, "quant=4")

    live = [line for line in lines(written) if line.startswith("[")]
    assert any(line.startswith(f"[5/5] {NAME} ") and "/132 tensors" in line for line in live)
    assert max(map(len, lines(written))) < COLUMNS
    record, summary = shown(written)  # nothing else is left
    assert record.startswith(f"   {NAME} ")
    assert summary.startswith("   1 step ran in 0:") and summary.endswith(", 4 steps up to date")


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"CI": "true"}], ids=str)
def test_where_no_line_can_be_drawn_again_each_step_is_reported_once(project, environment):
    written = build(project, NAME, "quant=4", **environment)

    assert "\x1b" not in written
    begun, record, _ = written.splitlines()
    assert begun == f".  {NAME}"
    assert record.startswith(f"   {NAME} ")


def test_a_build_ends_with_its_bundle_and_the_command_that_comes_next(project):
    first = project.sdbuild("build").splitlines()
    again = project.sdbuild("build").splitlines()

    assert first[-2].startswith(f"   {project.bundle}  ") and first[-2].endswith(" MB")
    assert first[-1] == f"   next: sdbuild generate {project.bundle}"
    assert again == [f"-- build  {project.bundle}", "   25 steps up to date"]
