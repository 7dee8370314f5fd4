"""Machines: each with a store of its own, and a shared one."""

from sdbuild.store import Record, Store, key
from sdbuild.store.remote.remote import Remote

TEXTS = {"Unet.mlmodelc/weights/weight.bin": "weights " * 1000, "Unet.mlmodelc/model.mil": "mil"}
PATIENCE_S = 600
"""Of a machine with its shared store: answers come, though late on a busy machine."""


class Machine:
    """A store of its own, and the shared one."""

    def __init__(self, folder, url, **options):
        self.folder, self.url, self.options = folder, url, options
        self.store = Store(folder / "cache")
        self.restart()

    def restart(self):
        self.remote = Remote(self.url, self.store, **({"timeout_s": PATIENCE_S} | self.options))

    def put(self, texts=TEXTS, n=1, large=None):
        out = self.folder / f"out-{n}"
        for name, text in texts.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(text)
        if large:
            large.rename(out / "large")
        made = ingredients(n)
        return self.store.put(out, Record(
            key=key(made), step="compile:unet", ingredients=made, tree=(), seconds=1.25,
            peak_bytes=10, made_at="2026-01-01T00:00:00+00:00", host=self.folder.name))

    def get(self, n=1):
        """The artifact as this machine would have it before it builds, or None."""
        made = ingredients(n)
        record = self.store.find(key(made)) or self.remote.find(key(made), made)
        if record is None or not self.remote.fetch(record):
            return None
        place = self.store.checkout(record, self.folder / f"laid-{n}")
        return {p.relative_to(place).as_posix(): p.read_text()
                for p in place.rglob("*") if p.is_file()}


def ingredients(n):
    return {"schema": 1, "kind": "compile", "version": 1, "params": {"n": n}, "inputs": {},
            "source": {}, "tools": {}}


def object_name(record, path):
    (entry,) = record.part(path)
    return f"objects/{entry.digest[:2]}/{entry.digest}"


def record_name(record):
    return f"records/{record.key[:2]}/{record.key}.json"
