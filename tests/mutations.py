"""Mutated documents and bytes: values of any kind in any place, bytes changed or cut off."""

import copy
import json

ODD = (
    None, True, False, 0, -1, 1.5, 1e300, 10**10, 2**63, 2**200, 10**4500, float("nan"),
    float("inf"), "", "a", "\0", "\ud800", "\x1b[2J", "../..", "/", "..", "a" * 300, "9" * 5000,
    "²", [], {}, [[]], ["a"], [1, 2], {"a": 1}, [None], "none", "v_prediction",
)


def paths(value, way=()):
    """The ways to all values inside of one."""
    yield way
    inner = value.items() if isinstance(value, dict) else (
        enumerate(value) if isinstance(value, list) else ())
    for name, part in inner:
        yield from paths(part, (*way, name))


def mutated(document, chance):
    """A document with some of its values replaced, removed, renamed or nested."""
    document = copy.deepcopy(document)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        *way, last = chance.choice([p for p in paths(document) if p] or [("a",)])
        holder = document
        for name in way:
            holder = holder[name]
        how = chance.randrange(5)
        if how == 0 and isinstance(holder, dict):
            holder[chance.choice(["", "a", "\0", "9" * 5000, "²", "-1", "__metadata__"])] = (
                holder.pop(last, None))
        elif how == 1 and last in (holder if isinstance(holder, dict) else range(len(holder))):
            del holder[last]
        elif how == 2 and last in (holder if isinstance(holder, dict) else range(len(holder))):
            for _ in range(chance.choice((1, 3, 100))):
                holder[last] = [holder[last]] if chance.random() < 0.5 else {"a": holder[last]}
        elif isinstance(holder, dict) or last < len(holder):
            holder[last] = copy.deepcopy(chance.choice(ODD))
    return document


def spoiled(content, chance):
    """Bytes with some of them changed, doubled, dropped or cut off."""
    content = bytearray(content)
    for _ in range(chance.choice((0, 0, 0, 1, 1, 3))):
        place = chance.randrange(len(content) + 1)
        end = place + chance.randrange(20)
        how = chance.randrange(4)
        if how == 0:
            content[place:end] = chance.randbytes(chance.randrange(4))
        elif how == 1:
            content[place:place] = content[place:end] * chance.choice((1, 2, 500))
        elif how == 2:
            del content[place:]
        else:
            content[place:end] = chance.choice((b"[" * 2000, b"\xff", b"<html>", b'"', b"NaN"))
    return bytes(content)


def written(document):
    """As JSON; beyond what `json` writes a number is written as it can be."""
    try:
        return json.dumps(document).encode()
    except ValueError:  # a number of more than 4,300 digits
        return b"[" + b"1" * 5000 + b"]"


def toml(document):
    """As TOML, tables first level deep; what TOML has not is written all the same."""
    tables = {k: v for k, v in document.items() if isinstance(v, dict)}
    lines = [f"{json.dumps(k)} = {line(v)}" for k, v in document.items() if k not in tables]
    for name, table in tables.items():
        lines.append(f"[{json.dumps(name)}]")
        lines += [f"{json.dumps(k)} = {line(v)}" for k, v in table.items()]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def line(value):
    try:
        return json.dumps(value)
    except ValueError:
        return "9" * 5000
