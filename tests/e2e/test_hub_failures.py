"""A Hub that refuses, cuts, hangs or lies: it is reported, and nothing is lost."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from sdbuild.store import Store
from tests.e2e.hub_checkpoints import (
    PLACE,
    UNET,
    content,
    files_asked_for,
    record,
    with_other_weights,
)
from tests.e2e.project import ROOT
from tests.waiting import wait_for

# faults before a download starts


def test_a_gated_repository_names_the_page_of_its_licence(new_project, hub, monkeypatch):
    hub.add("owner/tiny", content(), is_gated=True)

    printed = new_project.doit("build", status=1, source=PLACE)

    assert f"{PLACE}: its owner asks you to accept a licence first" in printed
    assert f"{hub.url}/owner/tiny" in printed
    assert "hf auth login" in printed
    assert "download:" not in printed
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert new_project.ran("download:unet", source=PLACE) == {"download:unet"}


def test_a_private_repository_is_read_with_a_token_which_is_kept_nowhere(
    new_project, hub, monkeypatch,
):
    hub.add("owner/tiny", content(), is_private=True)
    printed = new_project.doit("build", status=1, source=PLACE)
    assert "there is no such repository, or it is private" in printed
    monkeypatch.setenv("HF_TOKEN", hub.token)

    new_project.doit("download:unet", source=PLACE)

    kept = [p.read_bytes() for p in new_project.cache.rglob("*.json")]
    assert kept
    assert not any(hub.token.encode() in content for content in kept)
    to_cdn = [has_token for _, path, has_token in hub.requests if "/owner/" not in path]
    assert to_cdn == [False]


@pytest.mark.parametrize("place, message", [
    ("hub:owner/tinny", "hub:owner/tinny: there is no such repository, or it is private"),
    ("hub:owner/tiny@v9", "hub:owner/tiny@v9: the repository has no such revision"),
])
def test_what_is_not_there_is_reported(new_project, hub, tiny, place, message):
    assert message in new_project.doit("build", status=1, source=place)


@pytest.mark.parametrize("fault, message", [
    ({"status": 429, "headers": {"Retry-After": "120"}}, "try again in 120 seconds"),
    ({"status": 429}, "is rate limiting this machine (429)"),
    ({"status": 500}, "answers 500"),
    ({"status": 503, "text": "<html>down</html>"}, "answers 503"),
    ({"status": 401, "headers": {
        "X-Error-Message": "Invalid credentials in Authorization header"}},
     "denies access (401)"),
    ({"status": 403}, "denies access (403)"),
    ({"status": 200, "text": "<html>log in to this network</html>"},
     "does not answer as a Hub does"),
    ({"status": 200, "text": "{}"}, "does not answer as a Hub does"),
    ({"cut_after": 10}, "cannot reach 127.0.0.1"),
])
def test_a_hub_that_refuses_is_reported_before_anything_starts(
    new_project, hub, tiny, fault, message,
):
    hub.fail("/api/models", **fault)

    printed = new_project.doit("build", status=1, source=PLACE)

    assert message in printed
    assert "hint: " in printed
    assert "download:" not in printed
    assert len(hub.requests) == 1


def test_what_was_refused_once_is_asked_again_the_next_time(new_project, hub, tiny):
    hub.fail("/api/models", status=500, times=1)
    new_project.doit("download:unet", status=1, source=PLACE)

    assert new_project.ran("download:unet", source=PLACE) == {"download:unet"}


def test_a_hub_that_hangs_is_reported(new_project, hub, tiny, monkeypatch):
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
    hub.fail("/api/models", wait_s=3)

    assert "cannot reach 127.0.0.1" in new_project.doit("build", status=1, source=PLACE)


def test_an_endpoint_that_is_no_url_is_reported(new_project, hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "localhost")

    printed = new_project.doit("build", status=1, source=PLACE)

    assert "cannot reach HF_ENDPOINT=localhost" in printed


def test_a_hub_that_is_not_there_is_reported_without_its_password(new_project, hub, monkeypatch):
    hub.close()
    monkeypatch.setenv("HF_ENDPOINT", hub.url.replace("//", "//me:secret@"))

    printed = new_project.doit("build", status=1, source=PLACE)

    assert f"{PLACE}: cannot reach {hub.url.removeprefix('http://')}: Connection refused" in printed
    assert "secret" not in printed


def test_a_name_without_hub_is_taken_for_a_folder_and_gets_a_hint(new_project, hub, tiny):
    printed = new_project.doit("build", status=1, source="owner/tiny")

    assert 'did you mean "hub:owner/tiny"?' in printed


# faults during a download


CDN = "^/[0-9a-f]{64}$"
PIECE_BYTES = 10 << 20
"""The size of huggingface_hub's writes: up to so much is lost when a connection breaks."""


@pytest.fixture
def padded(hub):
    """The checkpoint, with 30 MB that no network has in the file of the U-Net."""
    padding = np.zeros(30_000_000, np.uint8)
    return hub.add(
        "owner/tiny", with_other_weights(lambda found: {UNET: save(found | {"x": padding})}))


def partials():
    return list((Path(os.environ["HF_HOME"]) / "hub").rglob("blobs/*.incomplete"))


def is_partial_of(bytes_):
    """Whether a partial download has this size; a file that is renamed meanwhile is ignored."""
    for path in partials():
        with suppress(FileNotFoundError):
            if path.stat().st_size == bytes_:
                return True
    return False


def test_a_cut_connection_is_resumed_where_it_was_cut(new_project, hub, padded):
    hub.fail(CDN, cut_after=25_000_000, times=1)

    new_project.doit("download:unet", source=PLACE)

    assert hub.ranges == [None, f"bytes={2 * PIECE_BYTES}-"]


@pytest.mark.parametrize("is_all", [True, False], ids=["all of the build", "doit alone"])
def test_a_download_that_was_killed_goes_on_where_it_was(new_project, hub, padded, is_all):
    hub.fail(CDN, cut_after=25_000_000, is_held=True, times=1)
    process = subprocess.Popen(
        [sys.executable, "-m", "doit", *new_project.command("download:unet", source=PLACE)],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for(lambda: is_partial_of(2 * PIECE_BYTES), process)
    if is_all:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    hub.requests.clear()

    new_project.doit("download:unet", source=PLACE)

    assert hub.ranges == [None, f"bytes={2 * PIECE_BYTES}-"]
    assert files_asked_for(hub) == [UNET]  # what was whole is there
    assert partials() == []
    made = record(new_project, "download:unet")
    assert "fetched_again" not in made.facts
    weights = Store(new_project.cache).file(made, "weights.safetensors")
    assert load_file(weights)["x"].shape == (30_000_000,)


def test_a_download_that_failed_goes_on_where_it_was(new_project, hub, padded):
    hub.fail(CDN, cut_after=15_000_000, times=1)
    hub.fail(CDN, status=500, times=1)
    assert "answers 500" in new_project.doit("download:unet", status=1, source=PLACE)

    new_project.doit("download:unet", source=PLACE)

    assert hub.ranges == [None, f"bytes={PIECE_BYTES}-"]


@pytest.mark.parametrize("left, ranges", [
    (bytes(PIECE_BYTES), [f"bytes={PIECE_BYTES}-", None]),  # found out by the digest
    (bytes(40_000_000), [None]),
], ids=["of other bytes", "too large"])
def test_what_is_left_of_another_download_does_no_harm(new_project, hub, padded, left, ranges):
    hub.fail(CDN, cut_after=0, status=500, times=1)
    new_project.doit("download:unet", status=1, source=PLACE)
    [partial] = partials()
    partial.write_bytes(left)

    new_project.doit("download:unet", source=PLACE)

    assert hub.ranges == ranges
    weights = Store(new_project.cache).file(
        record(new_project, "download:unet"), "weights.safetensors")
    assert load_file(weights)["x"].shape == (30_000_000,)


def test_two_components_that_need_one_file_fetch_it_once(new_project, hub, tiny):
    new_project.doit("-n", "2", "download:vae_decoder", "download:vae_encoder", source=PLACE)

    assert hub.ranges == [None]


@pytest.mark.parametrize("file, pattern", [
    (UNET, CDN), ("unet/config.json", "resolve/.*unet/config.json"),
])
def test_content_that_is_not_what_the_hub_promises_is_refused_naming_both_digests(
    new_project, hub, tiny, file, pattern,
):
    """A cache in between that answers with other bytes of the same size."""
    hub.fail(pattern, swap=b"{" + b" " * (len(content()[file]) - 1))

    printed = new_project.doit("download:unet", status=1, source=PLACE)

    assert f"{PLACE}@{tiny}: {file} came with the digest" in printed
    assert ", expected sha256:" in printed or ", expected git:" in printed
    hub.faults.clear()
    assert new_project.ran("download:unet", source=PLACE) == {"download:unet"}


def test_a_damaged_file_in_the_hubs_cache_is_named_and_fetched_again(new_project, hub, tiny):
    new_project.doit("download:unet", source=PLACE)
    blob = next(p for p in (Path(os.environ["HF_HOME"]) / "hub").rglob("blobs/*")
                if p.stat().st_size > 1_000_000)
    blob.write_bytes(bytes(blob.stat().st_size))
    new_project.doit("forget", "download:unet", source=PLACE)

    printed = new_project.doit("download:unet", source=PLACE)

    assert f"{UNET} was damaged in the Hub's cache, and is fetched again" in printed


def test_offline_works_from_what_was_fetched_before(new_project, hub, tiny, monkeypatch):
    new_project.doit("download:unet", source=PLACE)
    new_project.doit("forget", "download:unet", source=PLACE)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.requests.clear()

    assert new_project.ran("download:unet", source=PLACE) == {"download:unet"}
    printed = new_project.doit("download:text_encoder", status=1, source=PLACE)
    assert "HF_HUB_OFFLINE is set" in printed
    assert hub.requests == []


@pytest.mark.parametrize("how", ["offline", "unreachable"])
def test_without_the_hub_its_cache_will_do_for_a_new_store(
    new_project, hub, tiny, monkeypatch, how,
):
    """The cache was filled by another program."""
    fetched = "".join(f"hf_hub_download('owner/tiny', '{name}');" for name in (
        "unet/config.json", UNET, *(n for n in content() if n.startswith(("tok", "sched")))))
    code = f"from huggingface_hub import hf_hub_download; {fetched}"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    if how == "offline":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    else:
        hub.close()

    assert new_project.ran("download:unet", source=PLACE) == {"download:unet"}
    assert record(new_project, "download:unet").facts["place"] == f"{PLACE}@{tiny}"
    printed = new_project.doit("download:text_encoder", status=1, source=PLACE)
    assert f"{PLACE}@{tiny}, of which only the cache can be reached: no text_encoder" in printed
    assert not (new_project.cache / "hub.json").exists()


def test_a_file_that_comes_short_is_reported(new_project, hub, tiny):
    hub.fail(CDN, swap=b"short")

    printed = new_project.doit("download:unet", status=1, source=PLACE)

    assert "sent a file of another size than it promised" in printed
    assert [0] == [path.stat().st_size for path in partials()]  # none of it is kept


def test_a_cache_of_the_hub_that_cannot_be_written_is_reported(
    new_project, hub, tiny, tmp_path, monkeypatch,
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "file"))

    printed = new_project.doit("download:unet", status=1, source=PLACE)

    assert f"{tmp_path / 'file'}" in printed
    assert "put the Hub's cache elsewhere with HF_HUB_CACHE" in printed
