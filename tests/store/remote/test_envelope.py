"""Records that come from elsewhere: believed only if every part of them can be what it says."""

import hashlib
import hmac
import json

import pytest

from sdbuild.store import Entry, Record, key
from sdbuild.store.remote.envelope import Shared, Unsound, decoded, encoded

INGREDIENTS = {"schema": 1, "kind": "trace", "version": 1, "params": {"n": 6}, "inputs": {},
               "source": {}, "tools": {}}
KEY = key(INGREDIENTS)
A, B = "a" * 32, "b" * 32
SHA = {A: "1" * 64, B: "2" * 64}


def record(**other):
    return Record(**{
        "key": KEY, "step": "trace:unet", "ingredients": INGREDIENTS, "seconds": 0.1,
        "tree": (Entry("x/weights.bin", A, 5), Entry("x/y", B, 0)), "peak_bytes": 7,
        "made_at": "2026-01-01T00:00:00+00:00", "host": "h", "facts": {"n": [1.5, None]},
    } | other)


def sent(secret="", **other):
    return encoded(Shared(record=record(**other), sha256=SHA), secret)


def believed(content, secret=""):
    return decoded(content, KEY, INGREDIENTS, secret)


def test_a_record_comes_through_as_it_was_sent():
    assert believed(sent()) == Shared(record=record(), sha256=SHA)
    assert believed(sent("s3cret"), "s3cret") == Shared(record=record(), sha256=SHA)


def test_a_fact_may_be_infinite():
    facts = {"snr_db": float("inf")}

    assert believed(sent("s3cret", facts=facts), "s3cret").record.facts == facts


def test_the_signature_is_hmac_sha256_of_the_canonical_record():
    found = json.loads(sent("s3cret"))
    text = json.dumps(found["record"], sort_keys=True, separators=(",", ":"))

    expected = hmac.new(b"s3cret", b"sdbuild record 1\n" + text.encode(), hashlib.sha256)
    assert expected.hexdigest() == found["mac"]


@pytest.mark.parametrize("content", [sent(), sent("another"), sent("s3cret").replace(
    b'"1111', b'"3111'), sent("s3cret").replace(b"weights", b"weightz"), sent("s3cret").replace(
    b'"peak_bytes":7', b'"peak_bytes":8')], ids=[
    "unsigned", "another secret", "another file", "another path", "another fact"])
def test_with_a_secret_nothing_is_believed_that_was_not_signed_with_it(content):
    with pytest.raises(Unsound, match="not signed with this SDBUILD_REMOTE_SECRET"):
        believed(content, "s3cret")


@pytest.mark.parametrize("path", [
    "../x", "/etc/passwd", "a/../../b", "a//b", "./a", "a/", "", "..", "a\\b", "C:x", "a\nb",
    "a\x00b", "x" * 256, "a/\u202eb",
])
def test_a_path_that_leads_elsewhere_is_refused(path):
    with pytest.raises(Unsound, match=r"leads elsewhere|control characters"):
        believed(sent(tree=(Entry(path, A, 5),)))


@pytest.mark.parametrize("tree", [
    [Entry("a", A, 5), Entry("a", B, 5)], [Entry("a", A, 5), Entry("a/b", B, 5)],
    [Entry("a", A, 5), Entry("A", B, 5)], [Entry("e\u0301", A, 5), Entry("\u00e9", B, 5)],
], ids=["the same name", "a file as a folder", "the same letters", "the same name, decomposed"])
def test_files_that_collide_are_refused(tree):
    with pytest.raises(Unsound, match="collide"):
        believed(sent(tree=tuple(tree)))


@pytest.mark.parametrize("size", [-1, 1 << 41, 1.5, "5", None, True])
def test_a_size_that_no_file_has_is_refused(size):
    with pytest.raises(Unsound):
        believed(sent(tree=(Entry("a", A, size),)))


def test_one_file_of_two_sizes_is_refused():
    with pytest.raises(Unsound, match="contradicts"):
        believed(sent(tree=(Entry("a", A, 5), Entry("b", A, 6))))


@pytest.mark.parametrize("other", [
    {"key": "0" * 32}, {"ingredients": INGREDIENTS | {"version": 2}}, {"step": "../x"},
    {"step": "unet\x1b[2J"}, {"facts": {"warnings": ["\x1b]0;title\x07"]}}, {"facts": []},
    {"peak_bytes": -1}, {"peak_bytes": "7"}, {"seconds": -1.0}, {"seconds": "1"}, {"host": 5},
    {"tree": ()},
], ids=str)
def test_a_record_that_is_not_of_this_step_or_of_no_step_is_refused(other):
    with pytest.raises(Unsound):
        believed(sent(**other))


def test_a_key_that_is_not_that_of_the_ingredients_is_refused():
    """Nobody asks for such a key, unless a store was made by other rules for keys."""
    content = encoded(Shared(record=record(key="0" * 32), sha256=SHA), "")

    with pytest.raises(Unsound, match="not that of its ingredients"):
        decoded(content, "0" * 32, INGREDIENTS, "")


WHOLE = json.loads(sent())


@pytest.mark.parametrize("content", [
    b"", b"\x00", b"null", b"[]", b'"text"', b"{}", b"[" * 100_000, b"\xff\xfe",
    sent()[:-20], sent().replace(b'"seconds":0.1', b'"seconds":NaN'),
    json.dumps(WHOLE | {"record": WHOLE["record"] | {"more": 1}}).encode(),
    json.dumps(WHOLE | {"record": WHOLE["record"] | {"tree": [["a", A, 5]]}}).encode(),
    json.dumps(WHOLE | {"record": WHOLE["record"] | {"tree": [["a", "../../x", 5, "1" * 64]]}}
               ).encode(),
    json.dumps(WHOLE | {"record": WHOLE["record"] | {"tree": [["a", A, 5, "1"]]}}).encode(),
    json.dumps(WHOLE | {"record": WHOLE["record"] | {"tree": [[["a"], A, 5, "1" * 64]]}}).encode(),
    json.dumps(WHOLE | {"record": WHOLE["record"] | {"tree": "ab"}}).encode(),
    json.dumps(WHOLE | {"record": [1]}).encode(),
], ids=range(17))
def test_what_is_no_record_is_refused(content):
    with pytest.raises(Unsound):
        believed(content)


@pytest.mark.parametrize("length", range(0, len(sent()), 7))
def test_a_record_that_was_cut_is_refused(length):
    with pytest.raises(Unsound):
        believed(sent()[:length])
