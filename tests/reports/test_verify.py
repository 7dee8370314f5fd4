"""verify: damage is found, named with what it means, and dropped; what is whole is left alone."""

import json
import os
import re

import pytest

from sdbuild.base.errors import CorruptArtifact
from sdbuild.cli.main import main
from sdbuild.reports.verify import format_verified, verify
from sdbuild.store import disk
from sdbuild.store import store as store_module
from tests.engine.chains import chain, digest_of, object_of, placed, put, rot


def test_a_whole_store_is_found_whole(store, tmp_path, capsys):
    placed(store, chain(store, tmp_path), tmp_path / "bundle")

    count = sum(path.stat().st_size for path in store.objects())

    assert main(["verify", "--cache", str(store.root)]) == 0
    assert f"4 files of the store, {count} B read: all intact" in capsys.readouterr().out


def test_rot_that_keeps_the_time_is_named_with_all_that_came_from_it(store, tmp_path, capsys):
    made = chain(store, tmp_path)
    rot(object_of(store, made["convert"]))
    assert store.has_content(made["convert"])  # sizes and times tell nothing

    status = main(["verify", "--cache", str(store.root), "--json"])

    found = json.loads(capsys.readouterr().out)
    (fault,) = found["faults"]
    assert (status, found["schema"], found["is_mended"]) == (1, 1, True)
    assert fault["fault"] == "damaged"
    assert fault["digest"] == digest_of("package of weights")
    assert fault["used_as"] == [f"convert:unet ({made['convert'].key[:8]}): package"]
    assert fault["downstream"] == [
        f"{made[name].step} ({made[name].key[:8]})" for name in ("compile", "bundle")
    ]
    assert not store.has_content(made["convert"])


def test_damage_in_a_bundle_that_shares_the_file_is_named_and_no_longer_trusted(
    store, tmp_path, monkeypatch,
):
    monkeypatch.setattr(disk, "_clone", lambda source, target: False)
    made = chain(store, tmp_path)
    place = placed(store, made, tmp_path / "bundle")
    rot(object_of(store, made["compile"]))

    (fault,) = verify(store).faults

    assert fault.bundles == (str(place / "Unet.mlmodelc" / "weights"),)
    assert len(fault.used_as) == 2
    assert not store.is_laid_out(made["bundle"], place)


def test_a_damaged_copy_in_a_bundle_is_found_while_the_store_is_whole(
    store, tmp_path, monkeypatch,
):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")
    monkeypatch.setattr(os, "link", refuse)
    made = chain(store, tmp_path)
    place = placed(store, made, tmp_path / "bundle")
    rot(place / "Unet.mlmodelc" / "weights")

    found = verify(store)

    assert (found.faults, found.bundles) == ((), (str(place / "Unet.mlmodelc" / "weights"),))
    assert not found.is_whole
    assert not store.is_laid_out(made["bundle"], place)
    assert store.has_content(made["bundle"])


def test_a_file_that_is_lost_is_missed_once_and_then_known_to_be_gone(store, tmp_path):
    made = chain(store, tmp_path)
    object_of(store, made["download"]).unlink()

    (fault,) = verify(store).faults
    again = verify(store)

    assert fault.fault == "missing"
    assert (again.is_whole, again.without_content) == (True, 1)
    assert ("or only in a shared store: 1 artifact; a build that needs one fetches it"
            in format_verified(again))


def test_a_file_that_was_made_again_and_then_lost_is_missed_again(store, tmp_path):
    made = chain(store, tmp_path)
    rot(object_of(store, made["download"]))
    verify(store)
    chain(store, tmp_path)
    assert verify(store).without_content == 0

    rot(object_of(store, made["download"]))

    assert not verify(store).is_whole


def test_a_record_that_cannot_be_read_is_named_and_dropped(store, tmp_path):
    made = chain(store, tmp_path)["bundle"]
    path = next((store.root / "records").glob(f"*/{made.key}.json"))
    path.write_text("{")

    found = verify(store)

    assert found.records == (f"{made.key}.json",)
    assert not path.exists()
    assert verify(store).is_whole


def test_content_without_a_record_is_read_too(store, tmp_path):
    made = put(store, tmp_path, "convert:unet", {"a": "one"})
    rot(object_of(store, made))
    store.forget(made.key)

    (fault,) = verify(store).faults

    assert (fault.fault, fault.used_as) == ("damaged", ())


def test_damage_never_enters_a_layout_even_if_nobody_verified(store, tmp_path):
    made = chain(store, tmp_path)
    rot(object_of(store, made["compile"]))
    found, wanted = digest_of("bompiled 6 weights")[:8], digest_of("compiled 6 weights")[:8]

    with pytest.raises(
        CorruptArtifact, match=f"weights is damaged: digest {found}, expected {wanted}",
    ):
        placed(store, made, tmp_path / "bundle")

    assert not (tmp_path / "bundle").exists()
    assert not store.has_content(made["compile"])


def test_damaged_content_gives_way_to_the_same_bytes_made_anew(store, tmp_path):
    made = put(store, tmp_path, "convert:unet", {"a": "one"})
    rot(object_of(store, made))

    put(store, tmp_path, "convert:unet", {"a": "one"})

    assert verify(store).is_whole


DROPPED = "what is damaged in the store was deleted; a build that needs it makes it again"
AGAIN = ("the damaged bundles stay until `sdbuild build`, with the same settings, "
         "installs them again")


def ends(store):
    """Returns the text of verify after its list of damaged files, without the size."""
    lines = format_verified(verify(store)).splitlines()
    (first,) = [number for number, line in enumerate(lines) if " files of the store, " in line]
    return [re.sub(r", [^,]* read", "", lines[first]), *lines[first + 1:]]


@pytest.fixture(params=["linked", "copied"])
def how(request, monkeypatch):
    """Puts bundles in place without clones of files: by hard links, or by copies."""
    monkeypatch.setattr(disk, "_clone", lambda source, target: False)
    if request.param == "copied":
        def refuse(*_):
            raise OSError(18, "Invalid cross-device link")
        monkeypatch.setattr(os, "link", refuse)
    return request.param


def test_of_damage_in_the_store_the_end_says_what_became_of_it_and_of_the_bundle(
    store, tmp_path, how,
):
    made = chain(store, tmp_path)
    placed(store, made, tmp_path / "bundle")
    rot(object_of(store, made["compile"]))

    found = ends(store)

    also = [AGAIN] if how == "linked" else []  # a copy is as whole as it was
    assert found == ["4 files of the store: 1 damaged", DROPPED, *also]


def test_of_damage_in_a_bundle_alone_the_end_says_that_the_store_is_whole(
    store, tmp_path, how,
):
    made = chain(store, tmp_path)
    place = placed(store, made, tmp_path / "bundle")
    path = place / "Unet.mlmodelc" / "weights"
    if how == "copied":
        rot(path)
    else:
        path.unlink()

    printed = format_verified(verify(store))

    assert f"damaged or missing in a bundle: {path}" in printed
    assert ends(store) == ["4 files of the store: all intact", AGAIN]
    placed(store, made, place)  # as `doit build` does
    assert ends(store) == ["4 files of the store: all intact"]


def test_of_damaged_records_and_lost_files_the_end_says_what_runs_again(store, tmp_path):
    made = chain(store, tmp_path)
    path = next((store.root / "records").glob(f"*/{made['convert'].key}.json"))
    path.write_text("{")
    object_of(store, made["download"]).unlink()

    assert ends(store) == [
        "4 files of the store: 1 missing, 1 of its records damaged",
        "what is missing in the store is made again by a build that needs it",
        "the damaged records were deleted; a build that needs their steps runs them again",
    ]


def test_where_nothing_could_be_dropped_the_end_says_so_and_no_more(store, tmp_path, monkeypatch):
    made = chain(store, tmp_path)
    rot(object_of(store, made["download"]))

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")
    monkeypatch.setattr(store_module, "drop", refuse)

    assert ends(store) == [
        "4 files of the store: 1 damaged", "nothing was deleted: the store cannot be written to"]


def test_a_store_that_is_not_there_is_reported(tmp_path, capsys):
    assert main(["verify", "--cache", str(tmp_path / "none")]) == 1
    assert "there is no such folder, expected a store" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["verify", "du", "gc", "history", "find"])
def test_a_folder_where_nothing_was_made_is_no_store_and_left_alone(tmp_path, command, capsys):
    (tmp_path / "mine.txt").write_text("")

    assert main([command, "--cache", str(tmp_path)]) == 1
    assert "nothing was made there yet, expected a store" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_error_is_json_where_json_was_asked_for(tmp_path, capsys):
    main(["du", "--json", "--cache", str(tmp_path / "none")])

    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["error"]["type"]) == (1, "StoreError")
