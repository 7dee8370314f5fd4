"""The word that is suggested is the nearest that is known."""

import pytest

from sdbuild.base.suggestions import did_you_mean

TARGETS = ("iOS16", "iOS17", "iOS18", "macOS13", "macOS14", "macOS15")


@pytest.mark.parametrize("word, meant", [
    ("iOS15", "iOS16"), ("iOS19", "iOS18"), ("macOS12", "macOS13"), ("macOS16", "macOS15"),
    ("ios17", "iOS17"),
])
def test_of_words_that_are_equally_near_the_one_with_the_nearest_number_is_meant(word, meant):
    assert did_you_mean(word, TARGETS) == f'; did you mean "{meant}"?'


def test_nothing_is_suggested_for_a_word_that_is_like_none():
    assert did_you_mean("picture", TARGETS) == did_you_mean("x", ()) == ""
