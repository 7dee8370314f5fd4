"""Small artifacts, and what a store has of them."""

from sdbuild.store import Record, disk


def record(key="k" * 32, step="convert:unet"):
    return Record(key=key, step=step, ingredients={"kind": "convert"}, tree=(), seconds=1.0,
                  peak_bytes=1, made_at="2026-01-01T00:00:00+00:00", host="h")


def folder(tmp_path, name="out", **files):
    root = tmp_path / name
    for path, text in files.items():
        place = root / path.replace("__", "/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return root


def objects(store):
    return [p for p in (store.root / "objects").rglob("*") if p.is_file()]


def without_clones(monkeypatch):
    """As on ext4; on btrfs, XFS and APFS the tests run on clones otherwise."""
    monkeypatch.setattr(disk, "_clone", lambda source, target: False)
