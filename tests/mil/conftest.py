"""Makes `operations` importable from the folder of families; fixtures that test files share."""

import json

import pytest

from sdbuild.cli.main import main


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A package of two convolutions. Read only: tests edit copies."""
    from tests.mil.packages import convolutions

    return convolutions(tmp_path_factory.mktemp("source") / "source.mlpackage", layers=2)


@pytest.fixture
def mil(capsys):
    """Runs a command; gives its exit status and what it printed."""

    def run(*arguments):
        capsys.readouterr()
        status = main(["mil", *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out or err

    return run


@pytest.fixture
def mil_json(mil):
    """Runs a command with `--json`; gives what it printed, decoded."""

    def run(*arguments):
        status, out = mil(*arguments, "--json")
        assert status == 0, out
        return json.loads(out)

    return run
