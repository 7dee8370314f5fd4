"""Hypothesis strategies: values and programs."""

import math
import struct

from hypothesis import strategies as st

from sdbuild.mil.ir.dtype import DTYPES, FLOATS
from sdbuild.mil.ir.program import (
    Blob,
    Block,
    DictType,
    Function,
    ListType,
    NamedType,
    Operation,
    Program,
    StateType,
    TensorType,
    TupleType,
    Value,
)

OPSETS = ("CoreML5", "CoreML6", "CoreML7", "CoreML8")
INLINE = tuple(name for name, dtype in DTYPES.items() if dtype.format)

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True)
plain_strings = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters='"\\'), max_size=12
)
shapes = st.just((0,)) | st.lists(st.integers(1, 4), max_size=3).map(tuple)
dims = st.integers(0, 9) | st.sampled_from((None, ...))


def packed(dtype, count):
    """The packed elements of a constant, NaNs without payload."""
    code = DTYPES[dtype].format
    if dtype == "bool":
        element = st.booleans()
    elif dtype in FLOATS:
        element = st.floats(width=DTYPES[dtype].bits).map(lambda x: math.nan if x != x else x)
    else:
        low = -(1 << DTYPES[dtype].bits - 1) if dtype.startswith("int") else 0
        element = st.integers(low, low + (1 << DTYPES[dtype].bits) - 1)
    return st.lists(element, min_size=count, max_size=count).map(
        lambda numbers: struct.pack(f"<{count}{code}", *numbers)
    )


@st.composite
def tensors(draw):
    """Constants that are written in place."""
    dtype, shape = draw(st.sampled_from((*INLINE, "string"))), draw(shapes)
    if dtype != "string":
        return Value(TensorType(dtype, shape), draw(packed(dtype, math.prod(shape))))
    shape = shape[:1]
    count = math.prod(shape)
    texts = draw(st.lists(plain_strings, min_size=count, max_size=count))
    return Value(TensorType("string", shape), tuple(texts))


@st.composite
def blobs(draw):
    """Constants that lie in a weight file."""
    dtype = draw(st.sampled_from([name for name, d in DTYPES.items() if d.blob]))
    offset = draw(st.integers(0, (1 << 64) - 1))
    return Value(TensorType(dtype, draw(shapes)), Blob(f"@model_path/{draw(names)}", offset))


@st.composite
def dictionaries(draw):
    """Dictionaries of strings to one type of constant, and lists of it."""
    first = draw(tensors())
    kind = DictType(TensorType("string"), ListType(first.type, None))
    items = Value(kind.value, (first,) * draw(st.integers(0, 3)))
    keys = draw(st.lists(plain_strings, max_size=3))
    return Value(kind, tuple((Value(kind.key, (key,)), items) for key in keys))


def _tuple(items):
    return Value(TupleType(tuple(item.type for item in items)), tuple(items))


values = st.one_of(tensors(), blobs(), dictionaries(), st.lists(tensors(), max_size=3).map(_tuple))
attributes = st.dictionaries(names, values, max_size=3)
tensor_types = st.builds(
    TensorType, st.sampled_from(sorted(DTYPES)), st.lists(dims, max_size=3).map(tuple)
)
types = st.one_of(
    tensor_types, st.builds(StateType, tensor_types), st.builds(ListType, tensor_types, dims)
)
named_types = st.builds(NamedType, names, types)
operations = st.builds(
    Operation,
    type=names,
    inputs=st.dictionaries(names, st.lists(names | values, max_size=3).map(tuple), max_size=3),
    outputs=st.lists(named_types, max_size=2).map(tuple),
    attributes=attributes,
)


@st.composite
def functions(draw):
    """Functions without nested blocks, their inputs in the order of their names."""
    opset = draw(st.sampled_from(OPSETS))
    inputs = draw(st.lists(named_types, max_size=3, unique_by=lambda item: item.name))
    block = Block(
        operations=tuple(draw(st.lists(operations, max_size=4))),
        outputs=tuple(draw(st.lists(names, max_size=2))),
    )
    return Function(
        inputs=tuple(sorted(inputs, key=lambda item: item.name)),
        opset=opset, blocks={opset: block}, attributes=draw(attributes),
    )


programs = st.builds(
    Program, functions=st.dictionaries(names, functions(), max_size=2), attributes=attributes
)
