"""Stores with small artifacts that were made from each other, as by a build."""

import json
import os

import xxhash

from sdbuild.base.digest import digest
from sdbuild.bundle.install import install
from sdbuild.store import Record


def digest_of(text):
    return xxhash.xxh3_128_hexdigest(text.encode())


def put(store, tmp_path, step, files, inputs=(), params=None, **more):
    """An artifact of `step` with the texts of `files`, made from `inputs`: {name: record}."""
    out = tmp_path / f"out-{digest('test', [step, files, params])}"
    for name, text in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    ingredients = {
        "kind": step.partition(":")[0], "version": 1, "params": params or {},
        "inputs": {name: made.digest() for name, made in dict(inputs).items()},
        "source": {} if inputs else {n: digest_of(t) for n, t in files.items()}, "tools": {},
    } | more.pop("ingredients", {})
    fields = {"seconds": 1.0, "peak_bytes": 1000, "made_at": "2026-01-01T00:00:00+00:00",
              "host": "h"} | more
    return store.put(out, Record(key=digest("test", [step, ingredients]), step=step, tree=(),
                                 ingredients=ingredients, **fields))


def chain(store, tmp_path, name="mine", bits=6, weights="weights"):
    """download → convert → compile → bundle, by the names of their stages."""
    download = put(store, tmp_path, "download:unet", {"weights": weights})
    convert = put(store, tmp_path, "convert:unet", {"package": f"package of {weights}"},
                  {"checkpoint": download})
    compiled = put(store, tmp_path, "compile:unet",
                   {"Unet.mlmodelc/weights": f"compiled {bits} {weights}"}, {"package": convert},
                   {"nbits": bits})
    listed = {"Unet.mlmodelc/weights": [1, ""]}
    manifest = json.dumps({"files": listed, "is": [name, bits, weights]})
    bundle = put(
        store, tmp_path, "bundle",
        {"Unet.mlmodelc/weights": f"compiled {bits} {weights}", "manifest.json": manifest},
        {"unet": compiled},
        {"name": name, "width_px": 128, "height_px": 128, "attention": "original",
         "target": "iOS16", "components": {"unet": {"models": ["Unet.mlmodelc"], "nbits": bits}}},
    )
    return {"download": download, "convert": convert, "compile": compiled, "bundle": bundle}


def placed(store, made, folder):
    install(made["bundle"], store, folder)
    return folder


def rot(path):
    """Changes a byte and leaves the times as they were, as a failing disk does."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def object_of(store, record, path=""):
    (entry, *_) = record.part(path)
    return store.object(entry.digest)
