"""Builds on several workers with stores of their own: shared steps, deaths, failures, refusals."""

import re
import signal
import types

import pytest
from distributed import Client, Security

from sdbuild.cluster.fit import unserved
from sdbuild.cluster.worker import MEMORY, TOOLS, Admission
from sdbuild.engine.forks import environment
from sdbuild.store import Store
from tests.cluster import PATIENCE, VERSION
from tests.cluster.machines import Machines, Scheduler, result, wait_for_line

pytestmark = pytest.mark.slow

STEPS = 2 + 1 + 2 + 4 + 4
"""Of two checkpoints of one architecture in two variants: downloads, one program, packages."""

SMALL = ("--resources", "memory=5e6")
"""The options of a worker that may compress to 4 bits, and not to 8."""


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    found = Scheduler(tmp_path_factory.mktemp("scheduler"))
    yield found
    found.kill()


@pytest.fixture
def machines(tmp_path, scheduler):
    found = Machines(tmp_path, scheduler)
    yield found
    found.close()


@pytest.fixture
def weights(tmp_path):
    """Two checkpoints of one architecture."""
    paths = [tmp_path / name / "weights.safetensors" for name in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(f"weights {path.parent.name}")
    return paths


def test_a_worker_dies_and_one_joins_and_no_step_is_made_twice(machines, weights):
    for name in ("one", "two", "three"):
        machines.worker(name)
    client = machines.client(*weights)
    machines.wait_for_runs(4, client)
    machines.kill("two")
    machines.worker("four")
    found, lines = result(client)

    assert found["failed"] == {}
    records = {path.stem for path in (machines.folder / "shared" / "records").rglob("*.json")}
    assert len(records) == STEPS
    again = [step for step, count in machines.runs.items() if count > 1]
    assert len(again) <= 1, "more than the step that the dead worker was running"
    assert {line.partition(" ")[0] for line in machines.runs} == records
    assert {line.split()[-1] for line in lines if line.startswith("   [")} >= {"one", "three"}
    counted = [re.match(r"   \[(\d+)/(\d+)\]", line) for line in lines if line.startswith("   [")]
    assert all(int(each[1]) <= int(each[2]) for each in counted), "no step counts twice"

    alone = machines.built(weights[0], cache="alone", address="dask")[0]
    assert alone["bundles"] == {name: found["bundles"][name] for name in ("a-4", "a-8")}


def test_steps_that_the_longest_paths_start_with_run_first(machines, weights):
    machines.worker("one")
    found, _ = machines.built(*weights)

    assert found["failed"] == {}
    kinds = [line.partition(" ")[2] for line in machines.runs]  # in the order in which they ran
    assert kinds == sorted(kinds, key=["download", "lower", "convert", "palettize", "bundle"].index)


def test_bundles_come_to_the_machine_that_asks_as_they_are_done_and_nothing_else(
    machines, weights
):
    machines.worker("one")
    found, _ = machines.built(weights[0])

    store = Store(machines.folder / "client")
    assert found["failed"] == {}
    assert {record.step for record in store.records() if store.has_content(record)} == {
        "bundle", "palettize:unet"}, "whose bytes are those of a bundle here"


def test_steps_of_all_workers_of_a_machine_may_be_forked_from_one_process(machines, weights):
    """Dask gives each worker a folder for modules, and a variable of its own."""
    for name in ("one", "two"):
        machines.worker(name)
    found, _ = machines.built(weights[0])
    with Client(machines.address) as client:
        client.wait_for_workers(2)
        first, second = client.run(environment).values()

    assert found["failed"] == {}
    assert first == second


def test_values_that_come_from_other_workers_tell_nothing_of_the_link():
    """They count as many bytes, and are few."""
    worker = types.SimpleNamespace(bandwidth=5e9)
    admission = Admission({}, (), "topic", None, None)
    admission._worker = worker

    admission.transition("key", "executing", "memory")
    assert worker.bandwidth == 5e9
    admission.transition("key", "flight", "memory")
    assert worker.bandwidth == 100e6, "what Dask assumes"


def test_where_no_worker_is_left_that_is_all_that_is_said():
    error = unserved("palettize:unet", {MEMORY: 1e9, f"{TOOLS}-x": 1.0}, [])

    assert error.message == "palettize:unet: no worker is left"
    assert "starts its own again" in error.hint


def test_a_checkpoint_that_fails_takes_nothing_with_it_and_is_not_tried_again(machines, tmp_path):
    """The shared steps are planned from the first checkpoint, whose download fails, then from
    another."""
    paths = {}
    for name in ("cut", "broken", "good", "gone"):
        paths[name] = tmp_path / name / "weights.safetensors"
        paths[name].parent.mkdir()
        paths[name].write_text(name)
    paths["gone"].unlink()
    machines.worker("one")
    found, lines = machines.built(*paths.values())

    assert {name.partition("-")[0] for name in found["failed"]} == {"cut", "broken", "gone"}
    assert "download: the file is cut" in found["failed"]["cut-4"]
    assert found["failed"]["broken-8"] == "convert: the weights are broken\n\nhint: take others"
    assert str(paths["gone"]) in found["failed"]["gone-4"]
    assert all(found["bundles"][f"good-{nbits}"] for nbits in (4, 8))
    assert [line for line in lines if "download:unet" in line and "failed on one" in line]
    assert set(machines.runs.values()) == {1}


def test_a_client_that_dies_leaves_what_was_made_and_the_next_goes_on(machines, weights):
    machines.worker("one")
    machines.worker("two")
    client = machines.client(*weights)
    machines.wait_for_runs(4, client)
    client.send_signal(signal.SIGKILL)
    client.communicate()
    found, _ = machines.built(*weights)

    assert found["failed"] == {}
    assert len(machines.runs) == STEPS
    assert set(machines.runs.values()) == {1}


def test_a_worker_that_would_make_other_artifacts_is_named_and_nothing_runs(machines, weights):
    machines.worker("good")
    machines.worker("odd", **{VERSION: "2", "SDBUILD_REMOTE_SECRET": "another"})
    machines.wait_for_worker("good")
    machines.wait_for_worker("odd")
    found, _ = machines.built(*weights)

    assert found["error"] == "ToolMissing"
    assert found["message"].startswith("the worker odd at tcp://127.0.0.1:")
    assert "the step convert is version 2, here version 1" in found["message"]
    assert "SDBUILD_REMOTE_SECRET is another" in found["message"]
    assert not machines.runs


def test_a_worker_that_joins_later_with_other_code_gets_no_steps(machines, weights):
    machines.worker("good")
    client = machines.client(*weights)
    machines.wait_for_runs(1, client)
    machines.worker("odd", **{VERSION: "2"})
    found, lines = result(client)

    assert found["failed"] == {}
    assert {line.split()[-1] for line in lines if line.startswith("   [")} == {"good"}
    assert len(machines.runs) == STEPS


def test_a_variant_that_fits_no_worker_is_refused_before_any_of_its_steps_runs(machines, weights):
    machines.worker("small", *SMALL)
    found, _ = machines.built(weights[0])

    assert found["failed"] == {"a-8": (
        "palettize:unet needs 8.0 MB of memory, and no worker has more than 5.0 MB\n\n"
        "hint: start a worker with more: dask worker --resources memory=BYTES")}
    assert found["bundles"]["a-4"]
    assert len(machines.runs) == 1 + 1 + 1 + 1 + 1, "the steps of the one that fits"


def test_steps_wait_where_the_last_worker_that_they_fit_leaves_and_go_on_with_another(
    machines, weights
):
    machines.worker("small", *SMALL)
    machines.worker("large")
    machines.wait_for_worker("small")
    machines.wait_for_worker("large")
    client = machines.client(weights[0])
    machines.wait_for_runs(1, client)
    machines.kill("large")
    said = wait_for_line(client, "waits until one joins")
    machines.worker("larger")
    found, _ = result(client)

    assert "palettize:unet needs 8.0 MB of memory, and no worker has more than 5.0 MB" in said
    assert found["failed"] == {}
    assert found["bundles"]["a-8"]


def test_steps_that_wait_too_long_for_a_worker_fail_with_what_is_missing(machines, weights):
    machines.worker("small", *SMALL)
    machines.worker("large")
    machines.wait_for_worker("small")
    machines.wait_for_worker("large")
    client = machines.client(weights[0], **{PATIENCE: "1"})
    machines.wait_for_runs(1, client)
    machines.kill("large")
    found, _ = result(client)

    assert list(found["failed"]) == ["a-8"]
    assert "no worker has more than 5.0 MB" in found["failed"]["a-8"]
    assert found["bundles"]["a-4"]


def test_what_is_made_already_fits_a_worker_that_could_not_make_it(machines, weights):
    machines.worker("large")
    found, _ = machines.built(weights[0], nbits=[8])
    machines.kill("large")
    machines.worker("small", *SMALL)
    again, _ = machines.built(weights[0], nbits=[8], cache="another")

    assert again == found
    assert set(machines.runs.values()) == {1}


def test_a_scheduler_that_dies_ends_the_build_with_an_error(tmp_path, weights):
    machines = Machines(tmp_path, Scheduler(tmp_path))
    try:
        machines.worker("one")
        client = machines.client(weights[0])
        machines.wait_for_runs(1, client)
        machines.scheduler.kill()
        found, _ = result(client)
    finally:
        machines.close()
        machines.scheduler.kill()

    assert {name: each.partition("\n")[0] for name, each in found["failed"].items()} == {
        "a-4": "--on: the scheduler is gone", "a-8": "--on: the scheduler is gone"}


def test_with_tls_only_who_has_a_certificate_of_its_authority_is_let_in(tmp_path, weights):
    own, stranger = certificates(tmp_path / "own"), certificates(tmp_path / "stranger")
    machines = Machines(tmp_path, Scheduler(tmp_path, (
        "--host", "tls://127.0.0.1", "--tls-ca-file", own["CA_FILE"],
        "--tls-cert", own["CLIENT__CERT"], "--tls-key", own["CLIENT__KEY"])))
    try:
        machines.worker("one")
        found, without, with_others = (machines.built(weights[0], nbits=[4], **{
            f"DASK_DISTRIBUTED__COMM__TLS__{name}": file for name, file in files.items()})[0]
            for files in (own, {}, stranger))
    finally:
        machines.close()
        machines.scheduler.kill()

    assert machines.address.startswith("tls://")
    assert found["failed"] == {}
    assert "no certificates are named" in without["message"]
    assert "certificate" in with_others["message"]
    assert with_others["hint"].startswith("both sides need certificates of one authority")


def certificates(folder):
    """Writes the files of a new authority, by Dask's names for them."""
    folder.mkdir()
    made = Security.temporary()
    contents = {"CA_FILE": made.tls_ca_file, "CLIENT__CERT": made.tls_client_cert,
                "CLIENT__KEY": made.tls_client_key}
    for name, content in contents.items():
        (folder / name).write_text(content)
    return {name: str(folder / name) for name in contents}


def test_a_worker_where_the_shared_disk_is_not_mounted_is_named_and_nothing_runs(
    machines, weights, tmp_path
):
    """Relative paths stand for a mount: each process has another folder there."""
    machines.worker("one")
    found, _ = machines.built(weights[0], remote="shared-by-none", cwd=tmp_path / "a")

    assert found["message"].startswith("the worker one at tcp://127.0.0.1:")
    assert found["message"].endswith("the shared store is not there as it is here")
    assert not machines.runs
    assert not (tmp_path / "shared-by-none").exists()
