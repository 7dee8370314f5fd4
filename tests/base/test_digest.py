import hashlib

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from sdbuild.base.digest import canonical, digest, digest_file

floats = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers() | floats | st.text()
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12
)


def test_the_digest_of_a_value_is_pinned():
    # A change of encoding would forget every artifact of every user without a word.
    assert digest("step", {"b": 1, "a": ["é", None, 1.5]}) == "74534cb69bf5a2e2de55330013e35797"


def test_a_digest_is_xxh3_of_the_tag_and_the_canonical_json():
    text = rb'["step",{"a":["\u00e9",null,1.5],"b":1}]'

    found = digest("step", {"b": 1, "a": ["é", None, 1.5]})

    assert found == xxhash.xxh3_128_hexdigest(text)


@given(st.dictionaries(st.text(), scalars, min_size=2))
def test_the_order_of_a_dictionary_does_not_matter(value):
    turned = dict(reversed(value.items()))

    assert canonical(value) == canonical(turned)


@given(json_values, json_values)
def test_different_values_have_different_encodings(one, other):
    import json

    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (canonical(one) == canonical(other)) == same


def test_the_same_value_under_another_tag_has_another_digest():
    assert digest("step", 1) != digest("tree", 1)


def test_numbers_that_json_lacks_are_refused():
    with pytest.raises(ValueError, match="Out of range"):
        canonical(float("nan"))


def test_a_file_is_digested_by_its_bytes(tmp_path):
    path = tmp_path / "file"
    content = hashlib.sha256(b"x").digest() * 400_000
    path.write_bytes(content)

    assert digest_file(path) == xxhash.xxh3_128_hexdigest(content)
