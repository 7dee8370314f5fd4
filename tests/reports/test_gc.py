"""gc and du: what goes, what stays, and whose bytes they are."""

import json
import os
import threading
import time

import pytest

from sdbuild.base.errors import RecipeError
from sdbuild.base.units import parse_bytes, parse_seconds
from sdbuild.cli.main import main
from sdbuild.reports.du import pool, usage
from sdbuild.reports.gc import collect, garbage
from sdbuild.reports.lineage import Lineage
from sdbuild.reports.verify import verify
from sdbuild.store import disk
from tests.engine.chains import chain, object_of, placed, put

DAY = 86_400


def age(store, record, days):
    then = time.time() - days * DAY
    os.utime(store.root / "records" / record.key[:2] / f"{record.key}.json", (then, then))


def whole(store, made):
    return {name for name, record in made.items() if store.has_content(record)}


ALL = {"download", "convert", "compile", "bundle"}


def test_what_a_bundle_in_place_was_made_from_stays_and_the_rest_goes(store, tmp_path):
    kept, loose = chain(store, tmp_path), chain(store, tmp_path, "other", weights="others")
    placed(store, kept, tmp_path / "bundle")

    collect(store)

    assert whole(store, kept) == ALL
    assert whole(store, loose) == set()
    assert verify(store).is_whole


def test_another_checkpoint_of_the_same_architecture_goes(store, tmp_path):
    """Its download gave the file that the other's trace was made from, too."""
    def build(name):
        files = {"architecture.json": "{}", "weights": f"weights of {name}"}
        download = put(store, tmp_path, "download:unet", files, params={"is": name})
        parts = {path: download.digest(path) for path in files}
        trace = put(store, tmp_path, "trace:unet", {"graph": "of this architecture"},
                    ingredients={"inputs": {"architecture": parts["architecture.json"]}})
        bound = {"graph": trace.digest(), "weights": parts["weights"]}
        convert = put(store, tmp_path, "convert:unet", {"package": name},
                      ingredients={"inputs": bound})
        parity = put(store, tmp_path, "parity:unet", {"parity": f"of {name}"}, ingredients={
            "inputs": {"package": convert.digest(), "architecture": parts["architecture.json"]}})
        bundle = put(store, tmp_path, "bundle",
                     {"package": name, "manifest.json": json.dumps({"files": {"package": [1, ""]},
                                                                    "is": name})},
                     {"unet": convert}, {"name": name})
        return {"download": download, "trace": trace, "convert": convert, "parity": parity,
                "bundle": bundle}

    kept, loose = build("kept"), build("loose")
    placed(store, kept, tmp_path / "bundle")
    variants = Lineage(store.records()).variants()
    assert [variants[made["download"].key] for made in (kept, loose)] == [{"kept"}, {"loose"}]
    assert [variants[made["parity"].key] for made in (kept, loose)] == [{"kept"}, {"loose"}]

    collect(store)

    assert whole(store, kept) == set(kept)
    assert whole(store, loose) == {"trace"}  # the very same


def test_pictures_stay_with_the_bundle_that_drew_them(store, tmp_path):
    """They are made from other measurements: the pictures of the original."""
    def drawn(made):
        originals = put(store, tmp_path, "originals", {"1.png": "drawn"},
                        {"unet": made["download"]})
        return {"originals": originals, "pictures": put(
            store, tmp_path, "pictures", {"1.png": f"drawn by {made['compile'].key}"},
            {"unet": made["compile"], "originals": originals})}

    kept, loose = chain(store, tmp_path, bits=6), chain(store, tmp_path, bits=2)
    by_kept, by_loose = drawn(kept), drawn(loose)
    placed(store, kept, tmp_path / "bundle")
    variants = Lineage(store.records()).variants()
    assert variants[by_loose["pictures"].key] == variants[loose["bundle"].key]

    collect(store)

    assert whole(store, by_kept) == {"originals", "pictures"}
    assert whole(store, by_loose) == {"originals"}


def test_records_stay(store, tmp_path):
    made = chain(store, tmp_path)

    collect(store)

    assert whole(store, made) == set()
    assert {r.key for r in store.records()} == {r.key for r in made.values()}


def test_what_two_bundles_share_stays_with_the_one_that_is_kept(store, tmp_path):
    kept, loose = chain(store, tmp_path, bits=6), chain(store, tmp_path, bits=4)
    placed(store, kept, tmp_path / "bundle")

    collect(store)

    assert whole(store, loose) == {"download", "convert"}


def test_a_bundle_that_holds_a_component_of_the_kept_one_is_not_what_that_was_made_from(
    store, tmp_path,
):
    """A component within a bundle has the digest of the artifact that it came from."""
    vae = put(store, tmp_path, "compile:vae_decoder", {"VAEDecoder.mlmodelc/weights": "vae"})
    made = []
    for bits in (4, 6):
        unet = put(store, tmp_path, "compile:unet", {"Unet.mlmodelc/weights": f"unet {bits}"})
        files = {"VAEDecoder.mlmodelc/weights": "vae", "Unet.mlmodelc/weights": f"unet {bits}"}
        listed = {"manifest.json": json.dumps({"files": dict.fromkeys(files)})}
        bundle = put(store, tmp_path, "bundle", files | listed, {"vae_decoder": vae, "unet": unet},
                     {"bits": bits})
        made.append({"unet": unet, "bundle": bundle})
    placed(store, made[1], tmp_path / "bundle")

    collect(store)

    assert [whole(store, each) for each in made] == [set(), {"unet", "bundle"}]
    assert store.has_content(vae)


def test_a_bundle_that_was_taken_away_keeps_nothing(store, tmp_path):
    made = chain(store, tmp_path)
    place = placed(store, made, tmp_path / "bundle")
    place.rename(tmp_path / "elsewhere")

    found = collect(store)

    assert whole(store, made) == set()
    assert found.kept_for == ()
    assert not list((store.root / "roots").iterdir())
    assert (tmp_path / "elsewhere" / "Unet.mlmodelc" / "weights").read_text()


def test_a_dry_run_removes_nothing_and_tells_what_would_go(store, tmp_path, capsys):
    made = chain(store, tmp_path)

    main(["gc", "--cache", str(store.root)])

    printed = capsys.readouterr().out
    assert whole(store, made) == ALL
    assert "mine-128x128-original-6bit-iOS16" in printed
    assert "nothing was deleted (dry run); --yes deletes" in printed


def test_yes_does_it(store, tmp_path, capsys):
    made = chain(store, tmp_path)

    main(["gc", "--yes", "--json", "--cache", str(store.root)])

    found = json.loads(capsys.readouterr().out)
    assert whole(store, made) == set()
    assert (found["is_done"], found["files"], found["kept_bytes"]) == (True, 4, 0)


def test_a_recipe_is_kept_by_its_name(store, tmp_path):
    kept, loose = chain(store, tmp_path), chain(store, tmp_path, "other", weights="others")

    main(["gc", "--yes", "--keep", "mine", "--cache", str(store.root)])

    assert (whole(store, kept), whole(store, loose)) == (ALL, set())


def test_only_what_was_not_used_for_long_goes(store, tmp_path):
    kept, loose = chain(store, tmp_path), chain(store, tmp_path, "other", weights="others")
    placed(store, kept, tmp_path / "bundle")
    for name, record in loose.items():
        age(store, record, 40 if name in ("download", "convert") else 20)
    age(store, kept["download"], 400)

    collect(store, before=time.time() - 30 * DAY)

    assert (whole(store, kept), whole(store, loose)) == (ALL, {"compile", "bundle"})


def test_a_layout_is_a_use(store, tmp_path):
    made = chain(store, tmp_path)
    for record in made.values():
        age(store, record, 40)

    store.checkout(made["convert"], tmp_path / "work")
    collect(store, before=time.time() - 30 * DAY)

    assert whole(store, made) == {"convert"}


def test_for_room_the_oldest_goes_first_then_the_chain_and_the_bundle_never(store, tmp_path):
    kept, loose = chain(store, tmp_path), chain(store, tmp_path, "other", weights="others")
    placed(store, kept, tmp_path / "bundle")
    for days, name in enumerate(("bundle", "compile", "convert", "download")):
        age(store, loose[name], 10 + days)
        age(store, kept[name], 100 + days)
    disk_bytes = pool(store)[kept["download"].tree[0].digest].disk_bytes

    def left(max_bytes):
        collect(store, max_bytes=max_bytes)
        return whole(store, kept), whole(store, loose)

    assert left(8 * disk_bytes) == (ALL, ALL)
    assert left(7 * disk_bytes) == (ALL, ALL - {"download"})
    assert left(4 * disk_bytes) == (ALL, set())
    assert left(3 * disk_bytes) == (ALL - {"download"}, set())
    assert left(0) == ({"compile", "bundle"}, set())


def test_content_without_a_record_goes(store, tmp_path):
    made = put(store, tmp_path, "convert:unet", {"a": "one"})
    store.forget(made.key)

    collect(store)

    assert pool(store) == {}


def test_a_measurement_stays_with_what_it_measured(store, tmp_path):
    made = chain(store, tmp_path)
    parity = put(store, tmp_path, "parity:unet", {"parity.json": "{}"},
                 {"compiled": made["compile"], "checkpoint": made["download"]})
    placed(store, made, tmp_path / "bundle")

    assert garbage(store).files == ()
    assert store.has_content(parity)


def test_only_what_the_disk_gets_back_counts_as_freed(store, tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "_clone", lambda source, target: False)
    made = chain(store, tmp_path)
    placed(store, made, tmp_path / "bundle").rename(tmp_path / "elsewhere")

    found = garbage(store)

    block = pool(store)[made["download"].tree[0].digest].disk_bytes
    assert (found.freed_bytes, found.later_bytes) == (2 * block, 2 * block)


def test_gc_waits_for_a_build_and_a_build_for_gc(store, tmp_path):
    made = chain(store, tmp_path)
    with store.in_use("build"):
        thread = threading.Thread(target=collect, args=(store,))
        thread.start()
        thread.join(0.3)
        assert whole(store, made) == ALL
    thread.join()

    assert whole(store, made) == set()


@pytest.mark.parametrize("call", range(5))
def test_a_gc_that_is_killed_anywhere_leaves_a_store_that_is_whole(
    store, tmp_path, monkeypatch, call,
):
    kept, _ = chain(store, tmp_path), chain(store, tmp_path, "other", weights="others")
    placed(store, kept, tmp_path / "bundle")
    calls = {"made": 0}

    class KilledError(BaseException):
        pass

    def counted(real):
        def wrapper(*args, **kwargs):
            calls["made"] += 1
            if calls["made"] == call + 1:
                raise KilledError
            return real(*args, **kwargs)
        return wrapper

    with monkeypatch.context() as patch:
        for name in ("rename", "unlink"):
            patch.setattr(disk.Path, name, counted(getattr(disk.Path, name)))
        with pytest.raises(KilledError):
            collect(store)

    assert verify(store).is_whole
    assert whole(store, kept) == ALL
    collect(store)
    assert garbage(store).files == ()


def test_du_counts_every_byte_once_in_each_table(store, tmp_path):
    six, _ = chain(store, tmp_path, bits=6), chain(store, tmp_path, bits=4)
    placed(store, six, tmp_path / "bundle")
    total = sum(path.stat().st_blocks * 512 for path in store.objects())

    found = usage(store)

    assert found.disk_bytes == total
    for rows in found.tables.values():
        assert sum(row.own_bytes for row in rows) == total
    alone = {row.name: row.own_bytes for row in found.tables["variant"]}
    block = object_of(store, six["download"]).stat().st_blocks * 512
    assert alone == {
        "mine-128x128-original-6bit-iOS16": 2 * block,  # its compiled model and its manifest
        "mine-128x128-original-4bit-iOS16": 2 * block,
        "shared by several": 2 * block,  # checkpoint and package
    }
    assert [place.folder for place in found.bundles] == [str(tmp_path / "bundle")]


def test_du_keeps_variants_apart_that_only_the_command_line_told(store, tmp_path):
    """Such as a batch, another checkpoint: their records hold the name of their folder."""
    for name in ("mine-dreamy", "mine-other"):
        put(store, tmp_path, "bundle", {"manifest.json": name}, params={"name": "mine"},
            facts={"variant": name})

    rows = usage(store).tables["variant"]

    assert {row.name for row in rows} == {"mine-dreamy", "mine-other"}


def test_du_tells_a_file_with_holes_by_its_blocks(store, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with (out / "sparse").open("wb") as file:
        file.truncate(1 << 20)
    made = put(store, tmp_path, "convert:unet", {"a": "one"})
    store.put(out, made)

    found = usage(store)

    assert found.size_bytes == (1 << 20) + 3
    assert found.disk_bytes < 1 << 20


def test_du_of_clones_and_copies_counts_them_with_their_bundle(store, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")
    monkeypatch.setattr(os, "link", refuse)
    made = chain(store, tmp_path)
    placed(store, made, tmp_path / "bundle")

    (place,) = usage(store).bundles

    assert place.linked_bytes == 0
    assert place.own_bytes == sum(
        p.stat().st_blocks * 512 for p in (tmp_path / "bundle").rglob("*") if p.is_file()
    )


@pytest.mark.parametrize("text, expected", [
    ("20G", 20 * 10**9), ("1.5MB", 1_500_000), ("2GiB", 2 * 2**30), ("7", 7), ("0", 0),
])
def test_sizes_are_read_as_people_type_them(text, expected):
    assert parse_bytes(text, "--max-size") == expected


@pytest.mark.parametrize("text", ["", "G", "-1G", "1X", "1e9", "ten"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(RecipeError, match="expected a size such as"):
        parse_bytes(text, "--max-size")


@pytest.mark.parametrize("text, expected", [("90s", 90), ("30d", 30 * DAY), ("2h", 7200)])
def test_times_are_read_as_people_type_them(text, expected):
    assert parse_seconds(text, "--older-than") == expected
