"""The page of the contract lists the rules that are checked, all of them and no others."""

from pathlib import Path

from sdbuild.bundle.contract import RULES, table

PAGE = Path(__file__).parent.parent.parent / "docs" / "contract.md"
HEAD = "| | of | rule | if it is broken |"


def test_the_page_shows_every_rule(request):
    text, _, shown = PAGE.read_text("utf-8").partition(HEAD)
    if request.config.getoption("--accept"):
        PAGE.write_text(text + table() + "\n", "utf-8")
        return

    assert HEAD + shown == table() + "\n", "write the table anew: pytest --accept"


def test_every_rule_is_a_sentence_with_a_host_and_a_consequence():
    for rule in RULES:
        assert rule.what.endswith(".") and rule.otherwise.endswith("."), rule.name
        assert rule.host


def test_no_two_rules_have_one_name():
    assert len({rule.name for rule in RULES}) == len(RULES)
