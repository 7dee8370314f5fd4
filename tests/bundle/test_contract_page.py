"""The page of the contract lists the rules that are checked, all of them and no others."""

from pathlib import Path

from sdbuild.bundle.compatibility import page
from sdbuild.bundle.contract import RULES, table

PAGE = Path(__file__).parent.parent.parent / "docs" / "contract.md"
HOSTS = "| host | read in |"
HEAD = "| | of | rule | if it is broken |"


def test_the_page_shows_every_host_and_every_rule(request):
    before, hosts, between, rules = parts(PAGE.read_text("utf-8"))
    if request.config.getoption("--accept"):
        PAGE.write_text(before + page() + between + table() + "\n", "utf-8")
        return

    assert hosts == page(), "write the tables anew: pytest --accept"
    assert rules == table() + "\n", "write the tables anew: pytest --accept"


def parts(text):
    """The page before its table of hosts, that table, what lies between, and the rules."""
    before, head, rest = text.partition(HOSTS)
    hosts, _, between = rest.partition("\n\n")
    between, rules_head, rules = between.partition(HEAD)
    return before, head + hosts, "\n\n" + between, rules_head + rules


def test_every_rule_is_a_sentence_with_a_host_and_a_consequence():
    for rule in RULES:
        assert rule.what.endswith(".") and rule.otherwise.endswith("."), rule.name
        assert rule.host


def test_no_two_rules_have_one_name():
    assert len({rule.name for rule in RULES}) == len(RULES)
