"""Reads a store and a bundle without any code of the store."""

import json
from dataclasses import dataclass
from pathlib import Path

import xxhash

KNOWN = ("records", "objects", "roots", "gone.json", "work", "locks", "stamps.json")
"""The files and folders of a store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """`made`: the tree of every record, by its key; `whole`: the keys whose files are all there;
    `kept_for`: (folder, key) of bundles whose files no gc may take; `wrong`: whatever must never
    be; `left`: what a fault left behind, until the next gc."""

    made: dict
    whole: frozenset
    kept_for: frozenset
    wrong: tuple
    left: tuple

    @property
    def content(self):
        """The files of every whole artifact, without the keys of their records."""
        return {frozenset(self.made[key].items()) for key in self.whole}


def digest(path):
    return xxhash.xxh3_128_hexdigest(path.read_bytes())


def tree(folder):
    """The digest of every file below a folder, and None for an empty folder; None if it is not."""
    if not folder.exists():
        return None
    return {p.relative_to(folder).as_posix(): digest(p) if p.is_file() else None
            for p in folder.rglob("*") if p.is_file() or not any(p.iterdir())}


def read(cache):
    """Reads every byte of a store."""
    wrong, made, kept_for = [], {}, set()
    files = {p.name: p for p in cache.glob("objects/*/*") if not p.name.startswith(".")}
    damaged = {name for name, path in files.items() if digest(path) != name}
    wrong += [f"{name} holds other bytes" for name in damaged]
    try:
        gone = set(json.loads((cache / "gone.json").read_text()))
    except FileNotFoundError:
        gone = set()
    except ValueError:
        gone = wrong.append("gone.json cannot be read") or set()
    for path in cache.glob("roots/[!.]*.json"):
        try:
            note = json.loads(path.read_text())
            kept_for.add((note["folder"], note["key"]))
        except ValueError:
            wrong.append(f"{path} cannot be read")
    for path in cache.glob("records/*/[!.]*.json"):
        try:
            record = json.loads(path.read_text())
        except ValueError:
            wrong.append(f"{path} cannot be read")
            continue
        if (record["key"], path.parent.name) != (path.stem, path.stem[:2]):
            wrong.append(f"{path} is of {record['key']}")
        made[record["key"]] = {name: found for name, found, _ in record["tree"]}
        wrong += [f"{record['step']} lacks {name}" for name, found, _ in record["tree"]
                  if found not in files and found not in gone]
    return View(
        made=made,
        whole=frozenset(key for key, found in made.items()
                        if set(found.values()) <= files.keys() - damaged),
        kept_for=frozenset(kept_for),
        wrong=tuple(wrong),
        left=tuple(str(p.relative_to(cache)) for p in (
            *cache.rglob(".new-*"), *cache.glob("work/*"),
            *(p for p in cache.glob("*") if p.name not in KNOWN))),
    )


def beside(out, name):
    """Everything in the folder of a bundle but the bundle: the user's, and what was left there."""
    return {path.name: tree(path) if path.is_dir() else path.read_text()
            for path in Path(out).iterdir() if path.name != name}
