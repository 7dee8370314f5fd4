"""The text of tensor constants in MIL text: packed elements printed, and read back.

Whole tensors at a time, because inline tensors make lines of megabytes.
"""

from __future__ import annotations

import math
import re
import struct

from sdbuild.base.errors import InvalidProgram, UnsupportedFormat
from sdbuild.mil.ir.dtype import DTYPES, FLOATS
from sdbuild.mil.ir.program import TensorType

_NEEDS_ESCAPE = re.compile(r'["\\\x00-\x1f\x7f]')
_NOT_SKELETON = re.compile(r"[^\[\],]+")
_NO_BRACKETS = str.maketrans("", "", "[]")
_INTEGER = re.compile(r"-?[0-9]{1,20}")
_FLOAT = re.compile(r"-?(?:0x[01](?:\.[0-9a-f]{1,13})?p[+-][0-9]{1,4}|inf|nan)")
_BOOLS = {"true": True, "false": False}
_LONGEST_QUOTE = 40


def value_shape(kind: TensorType, count: int) -> tuple[int, ...]:
    """Returns the shape of a constant of `count` elements: `[?]` is as long as there are elements.

    Raises:
        UnsupportedFormat: the text form of such a constant is not known.
    """
    if kind.shape == (None,):
        return (count,)
    shape = tuple(dim for dim in kind.shape if isinstance(dim, int))
    if shape != kind.shape or (0 in shape and len(shape) > 1):
        raise UnsupportedFormat(f"the text of a constant of shape {kind.shape} is not known")
    return shape


# elements -> text


def format_tensor(kind: TensorType, data: bytes | tuple[str, ...]) -> str:
    """Returns the text of a tensor's elements, in brackets by shape, row major.

    Raises:
        InvalidProgram: `data` does not fill the shape.
        UnsupportedFormat: the text form of such a constant is not known.
    """
    texts = _texts(kind.dtype, data)
    shape = value_shape(kind, len(texts))
    if math.prod(shape) != len(texts):
        raise InvalidProgram(
            f"a {kind.dtype} constant of shape {list(shape)} has {len(texts)} elements"
        )
    for axis in reversed(range(len(shape))):
        size = shape[axis]
        texts = [
            f"[{', '.join(texts[row * size:(row + 1) * size])}]"
            for row in range(math.prod(shape[:axis]))
        ]
    return texts[0]


def _texts(dtype: str, data: bytes | tuple[str, ...]) -> list[str]:
    if isinstance(data, tuple):
        return [_quoted(text) for text in data]
    code = _code(dtype)
    if len(data) % struct.calcsize(code):
        raise InvalidProgram(f"{len(data)} bytes are not an integer of {dtype} elements")
    write = _float_text if dtype in FLOATS else _bool_text if dtype == "bool" else str
    return [write(number) for (number,) in struct.iter_unpack(f"<{code}", data)]


def _code(dtype: str) -> str:
    code = DTYPES[dtype].format
    if code is None:
        raise UnsupportedFormat(f"the text of {dtype} constants outside weight files is not known")
    return code


def _quoted(text: str) -> str:
    if _NEEDS_ESCAPE.search(text):
        raise UnsupportedFormat(f"the text of a string that needs escaping is not known: {text!r}")
    return f'"{text}"'


def _bool_text(value: bool) -> str:
    return "true" if value else "false"


def _float_text(value: float) -> str:
    """Returns the C99 hexadecimal form: normalised, without trailing zeros."""
    if not math.isfinite(value):
        return str(value)
    mantissa, exponent = math.frexp(value)
    digits = (2 * mantissa).hex().partition("p")[0].rstrip("0").rstrip(".")
    return f"{digits}p{exponent - 1 if value else 0:+d}"


# text -> elements


def pack_numbers(kind: TensorType, text: str) -> bytes:
    """Returns the packed elements that the text of a tensor of numbers or booleans gives.

    Raises:
        ValueError: `text` does not fit the type; says how.
        UnsupportedFormat: the text form of such a constant is not known.
    """
    tokens = [token.strip() for token in text.translate(_NO_BRACKETS).split(",")]
    tokens = [] if tokens == [""] else tokens
    if _NOT_SKELETON.sub("", text) != _skeleton(value_shape(kind, len(tokens)), len(text)):
        raise ValueError("the brackets or the number of elements differ")
    read = _float if kind.dtype in FLOATS else _bool if kind.dtype == "bool" else _integer
    try:
        return struct.pack(f"<{len(tokens)}{_code(kind.dtype)}", *map(read, tokens))
    except (OverflowError, struct.error) as error:
        raise ValueError(f"an element is too large: {error}") from error


def _skeleton(shape: tuple[int, ...], longest: int) -> str:
    """Returns the brackets and commas of a tensor, or nothing if they take more than `longest`."""
    if math.prod(shape) > longest:
        return ""
    text = ""
    for dim in reversed(shape):
        text = f"[{','.join([text] * dim)}]"
    return text


def _integer(token: str) -> int:
    if not _INTEGER.fullmatch(token):
        raise ValueError(f"{token[:_LONGEST_QUOTE]!r} is not an integer")
    return int(token)


def _float(token: str) -> float:
    if not _FLOAT.fullmatch(token):
        raise ValueError(f"{token[:_LONGEST_QUOTE]!r} is not a C99 hexadecimal number")
    return float.fromhex(token)


def _bool(token: str) -> bool:
    if token not in _BOOLS:
        raise ValueError(f"{token[:_LONGEST_QUOTE]!r} is neither true nor false")
    return _BOOLS[token]
