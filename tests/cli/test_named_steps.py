"""Steps that a build is asked for by name."""

import pytest

from sdbuild.cli.main import main
from sdbuild.store import Store

STEP, BEFORE = "palettize:text_encoder", "download:text_encoder"


@pytest.fixture
def evicted(tmp_path, monkeypatch, capsys):
    """A store with records whose content went."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDBUILD_CACHE", str(tmp_path / "cache"))
    assert main(["build", STEP, "quant=6"]) == 0
    assert main(["gc", "--yes", "--max-size", "0"]) == 0
    capsys.readouterr()
    return Store(tmp_path / "cache")


def there(store):
    return {record.step for record in store.records() if store.has_content(record)}


@pytest.mark.parametrize("task", [STEP, "palettize"])
def test_a_step_that_is_named_is_made_again_if_its_content_went(task, evicted, capsys):
    assert there(evicted) == set()
    assert main(["why", task, "quant=6", "components=text_encoder"]) == 0
    assert f"{STEP}  would run: " in capsys.readouterr().out

    assert main(["build", task, "quant=6", "components=text_encoder"]) == 0
    assert STEP in there(evicted)

    assert main(["why", task, "quant=6", "components=text_encoder"]) == 0
    assert "would run" not in capsys.readouterr().out


def test_a_step_that_is_not_named_needs_only_its_record(evicted):
    assert main(["build", STEP, "quant=6"]) == 0
    [before] = [record for record in evicted.records() if record.step == BEFORE]
    for entry in before.tree:
        evicted.object(entry.digest).unlink(missing_ok=True)

    assert main(["build", STEP, "quant=6"]) == 0

    assert STEP in there(evicted) and BEFORE not in there(evicted)
