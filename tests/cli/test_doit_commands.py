"""Commands of doit that say something else than doit's own."""

import pytest

from sdbuild.cli.main import main


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """An empty folder with a store of one artifact."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDBUILD_CACHE", str(tmp_path / "cache"))
    assert main(["build", "download:resources"]) == 0


def info(capsys, *words):
    capsys.readouterr()
    status = main(["info", *words])
    return status, "".join(capsys.readouterr())


def test_info_of_a_step_that_is_made_says_what_is_known_of_its_artifact(capsys):
    status, said = info(capsys, "download:resources")

    assert status == 0
    assert [line.split()[:2] for line in said.splitlines()[1:3]] == [
        ["state", "up"], ["made", said.splitlines()[2].split()[1]]]
    assert "MB memory" in said


def test_info_of_a_step_that_would_run_says_what_it_waits_for_and_who_says_why(capsys):
    status, said = info(capsys, "trace:unet")

    assert status == 1
    assert "  needs   download:unet\n" in said
    assert "  state   would run, after download:unet: sdbuild why trace:unet\n" in said


def test_info_of_a_task_that_is_no_step_says_what_it_does(capsys):
    status, said = info(capsys, "build")

    assert (status, said) == (1, "build  build the bundle\n  needs   bundle\n")


@pytest.mark.parametrize(("words", "expected"), [
    (["trace:uent"], 'there is no task \'trace:uent\'; did you mean "trace:unet"?'),
    (["tiny-emoji"], "tiny-emoji is a recipe, expected a task\n\nhint: add model=tiny-emoji"),
    ([], "info: expected one task"), (["why"], "why is a command of sdbuild\n\nhint: sdbuild why"),
])
def test_info_of_what_is_no_task_is_an_error(words, expected, capsys):
    status, said = info(capsys, *words)

    assert status == 3
    assert expected in said and "Traceback" not in said
