"""The door for JSON and TOML from outside."""

import json
import os
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdbuild.base.errors import RecipeError, SourceError
from sdbuild.base.parsing import (
    DEEPEST,
    Fields,
    json_file,
    json_object,
    json_value,
    looks_like,
    read_file,
    shown,
    toml_table,
)

HOSTILE = {
    "deep lists": ("[" * 200_000, "nested more than 64 levels"),
    "deep objects": ('{"a":' * 100_000, "nested more than 64 levels"),
    "deep enough for Python": ("[" * 70 + "]" * 70, "nested more than 64 levels"),
    "5,000 digits": ("1" * 5000, "too many digits"),
    "more than 64 bits": (str(2**64), "too many digits"),
    "infinite by its size": ("[1e999]", "inf, expected finite"),
    "not a number": ('{"a": NaN}', "'a': nan, expected finite"),
    "NUL": ('["a\\u0000"]', "a control character, '\\\\x00'"),
    "escape sequence in a name": ('{"\\u001b[2J": 1}', "a control character"),
    "half a pair": ('["\\ud800"]', "half a surrogate pair"),
    "twice": ('{"a": 1, "b": 2, "a": 3}', "the field 'a' is there twice"),
    "latin-1": ('{"a": "é"}'.encode("latin-1"), "not UTF-8 at byte 7"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "UTF-16"),
    "cut short": ('{"a": "b', "not JSON: Unterminated string"),
    "empty": ("", "an empty file"),
    "zeros": ("\0" * 100, "zeros"),
    "two values": ("1 2", "not JSON: Extra data"),
    "too large": (" " * (5 << 20), "5242880 bytes, expected at most 4194304"),
}


@pytest.mark.parametrize(("content", "message"), HOSTILE.values(), ids=HOSTILE)
def test_json_beyond_a_limit_is_one_error_of_the_callers_class(content, message):
    with pytest.raises(SourceError, match=f"^config.json: .*{message}"):
        json_value(content, "config.json", SourceError)


@given(st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64) + 1, 2**64 - 1) | st.text(
        st.characters(codec="utf-8", min_codepoint=160))
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abcé"), inner)))
def test_honest_json_is_what_the_standard_library_reads(value):
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert json_value(text.encode(), "a.json") == json.loads(text)


@given(st.binary() | st.text())
def test_any_bytes_are_read_as_json_and_toml_or_refused(content):
    for parse in (json_value, toml_table):
        try:
            parse(content, "a", SourceError)
        except SourceError as error:
            assert str(error).startswith("a: ")


def test_a_byte_order_mark_is_ignored():
    assert json_object(b'\xef\xbb\xbf{"a": 1}', "a.json") == {"a": 1}
    assert toml_table(b"\xef\xbb\xbfa = 1", "a.toml") == {"a": 1}


def test_infinities_and_control_characters_are_read_where_they_are_allowed():
    assert json_value("[Infinity]", "a", has_infinities=True) == [float("inf")]
    assert json_value('["\\u0007"]', "a", has_controls=True) == ["\a"]


@pytest.mark.parametrize("content", ["[]", "null", "3", '"a"'])
def test_an_object_is_expected_where_fields_are_read(content):
    with pytest.raises(SourceError, match="expected a JSON object"):
        json_object(content, "a.json", SourceError)


@pytest.mark.parametrize(("content", "message"), [
    ("a = " + "[" * 3000 + "]" * 3000, "nested more than 64 levels"),
    ("a" + ".a" * 30_000 + " = 1", "a key of more than 64 parts at line 1"),
    ("b = {" + '"a b".' * 9000 + "a = 1}", "a key of more than 64 parts"),
    ("a = " + "1" * 5000, "too many digits"),
    ("a = 99999999999999999999", "too many digits"),
    ("a = inf", "inf, expected finite"),
    ("a = 1979-05-27", "a date, expected"),
    ('a = "\\u0000"', "a control character"),
    ("a = 1\na = 2", "not TOML: Cannot overwrite"),
    (b"a = '\xe9'", "not UTF-8"),
    ("#" * 70_000, "70000 bytes"),
], ids=range(11))
def test_toml_beyond_a_limit_is_one_error_of_the_callers_class(content, message):
    with pytest.raises(RecipeError, match=f"^my.toml: .*{message}"):
        toml_table(content, "my.toml", RecipeError)


def test_honest_toml_is_what_the_standard_library_reads():
    text = 'a.b = 1\nprompt = "a fox. a moon......"\n[draw]\nsteps = [1, 2.5, true]\n'

    assert toml_table(text.encode(), "my.toml") == tomllib.loads(text)


@pytest.mark.parametrize(("content", "expected"), [
    ("version https://git-lfs.github.com/spec/v1\noid sha256:00", "a Git LFS pointer"),
    ("<!DOCTYPE html><html><head>", "a web page"),
    ("Entry not found", "the Hub's answer that there is no such file"),
    ("\n\n  <html>", "a web page"),
    ("\x1f\x8b\x08", "compressed with gzip"),
])
def test_files_that_are_there_in_place_of_json_are_recognised(content, expected):
    with pytest.raises(SourceError, match=f"not (JSON|UTF-8).*: {expected}") as caught:
        json_object(content.encode("latin-1"), "model_index.json", SourceError)

    assert caught.value.hint
    assert looks_like(b'{"a": 1}') == ("", "")


def test_the_nesting_that_is_allowed_does_not_depend_on_pythons_stack():
    def from_deep(levels):
        return from_deep(levels - 1) if levels else json_value(
            "[" * DEEPEST + "]" * DEEPEST, "a.json")

    assert from_deep(400) == json_value("[" * DEEPEST + "]" * DEEPEST, "a.json")


@pytest.mark.parametrize(("name", "message"), [
    ("loop", "cannot be read: Too many levels of symbolic links"),
    ("none", "no such file"),
    ("folder", "not a file"),
    ("pipe", "not a file"),
    ("a" * 300, "cannot be read: File name too long"),
    ("a\0b", "cannot be read: embedded null"),
    ("large", "101 bytes, expected at most 100"),
])
def test_only_regular_files_of_a_sane_size_are_read(name, message, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b" " * 101)

    with pytest.raises(SourceError, match=message):
        read_file(tmp_path / name, SourceError, most_bytes=100)


def test_the_error_of_a_file_names_its_path(tmp_path):
    (tmp_path / "a.json").write_text("[")

    with pytest.raises(SourceError, match=f"{tmp_path}/a.json: not JSON"):
        json_file(tmp_path / "a.json", SourceError)


FIELDS = Fields(
    {"number": 1.5, "count": 20, "name": "a", "names": ["a", "b"], "yes": True, "null": None,
     "inner": {"wrong": [1]}, "huge": 10**10}, "config.json", SourceError)


def test_fields_are_taken_by_their_types():
    assert FIELDS.integer("count", low=1) == 20
    assert FIELDS.number("number") == 1.5
    assert FIELDS.number("count") == 20
    assert FIELDS.text("name") == "a"
    assert FIELDS.listed("names", str) == ["a", "b"]
    assert FIELDS.flag("yes") is True
    assert FIELDS.choice("name", ("a", "b")) == "a"
    assert FIELDS.fields("inner").listed("wrong", int) == [1]
    assert FIELDS.text("null", default="b") == FIELDS.text("none", default="b") == "b"


@pytest.mark.parametrize(("take", "message"), [
    (lambda: FIELDS.integer("number"), "number is 1.5, expected an integer from 0 to"),
    (lambda: FIELDS.integer("yes"), "yes is True, expected an integer"),
    (lambda: FIELDS.integer("huge", high=1000), "huge is 10000000000, expected .* to 1000$"),
    (lambda: FIELDS.integer("none"), "none is missing, expected an integer"),
    (lambda: FIELDS.number("name"), "name is 'a', expected a number"),
    (lambda: FIELDS.text("count"), "count is 20, expected text"),
    (lambda: FIELDS.listed("name", str), "name is 'a', expected a list of str"),
    (lambda: FIELDS.choice("names", ("a",)), "names is a list, expected one of a"),
    (lambda: FIELDS.fields("name"), "name is 'a', expected an object"),
    (lambda: FIELDS.fields("inner").text("wrong"), "inner: wrong is a list, expected text"),
])
def test_a_field_of_another_type_is_an_error_that_names_it(take, message):
    with pytest.raises(SourceError, match=f"^config.json: {message}"):
        take()


@pytest.mark.parametrize("value", ["\x1b[2J", "a" * 10_000, [["a"] * 1000], {"a" * 1000: 1}])
def test_values_in_messages_are_short_and_steer_no_terminal(value):
    assert len(shown(value)) <= 64
    assert shown(value).isprintable()
