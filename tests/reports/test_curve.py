"""Bundles of several bits as a table, and the sentence on the smallest that is good enough."""

from sdbuild.reports.curve import conclusion, table
from tests.reports.page.test_page import report, variant

FOUR = variant(psnr_db=24.4, word="changed", label="quant=4", size_bytes=2_000_000)
OWN = variant(psnr_db=33.1, label="quant=4.0", size_bytes=2_100_000,
              command="sdbuild build quant=4.0")
SIX = variant(psnr_db=39.2, label="quant=6", size_bytes=3_000_000)


def test_the_smallest_is_that_with_the_fewest_bytes_whose_images_are_the_originals():
    made = report(SIX, FOUR, OWN)

    assert made.smallest is OWN
    assert conclusion(made) == ("quant=4.0 is the smallest that generates the original's images, "
                                "2.1 MB: sdbuild build quant=4.0")


def test_where_none_is_good_enough_the_sentence_says_so():
    assert report(FOUR).smallest is None
    assert conclusion(report(FOUR)) == ("none of 1 bundle generates the original's images: try "
                                        "more bits")


def test_a_row_has_the_size_the_worst_image_and_the_verdict():
    rows = [line.split() for line in table(report(FOUR, OWN)).splitlines()[1:]]

    assert rows == [["quant=4", "2.0", "MB", "24.4", "dB", "changed"],
                    ["quant=4.0", "2.1", "MB", "33.1", "dB", "same"]]


def test_a_long_label_stays_within_its_column():
    lines = table(report(variant(label="bits=" + "x" * 200))).splitlines()

    assert max(map(len, lines)) <= 80
    assert lines[1].startswith("bits=xxx")
