"""Builds on several workers with stores of their own: shared steps, deaths, failures, refusals."""

import signal

import pytest
from distributed import Security

from tests.cluster import VERSION
from tests.cluster.machines import Machines, result

pytestmark = pytest.mark.slow

STEPS = 2 + 1 + 2 + 4 + 4
"""Of two checkpoints of one architecture in two variants: downloads, one program, packages."""


@pytest.fixture
def machines(tmp_path):
    found = Machines(tmp_path)
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

    alone = machines.built(weights[0], cache="alone", address="dask")[0]
    assert alone["bundles"] == {name: found["bundles"][name] for name in ("a-4", "a-8")}


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


def test_with_tls_only_who_has_a_certificate_is_let_in(tmp_path, weights):
    security = Security.temporary()
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key")}
    files["ca"].write_text(security.tls_ca_file)
    files["cert"].write_text(security.tls_client_cert)
    files["key"].write_text(security.tls_client_key)
    machines = Machines(tmp_path, (
        "--host", "tls://127.0.0.1", "--tls-ca-file", str(files["ca"]),
        "--tls-cert", str(files["cert"]), "--tls-key", str(files["key"])))
    try:
        machines.worker("one")
        names = ("CA_FILE", "CLIENT__CERT", "CLIENT__KEY")
        found, _ = machines.built(weights[0], nbits=[4], **{
            f"DASK_DISTRIBUTED__COMM__TLS__{name}": str(path)
            for name, path in zip(names, files.values(), strict=True)})
        refused, _ = machines.built(weights[0])
    finally:
        machines.close()

    assert machines.address.startswith("tls://")
    assert found["failed"] == {}
    assert "no certificates are named" in refused["message"]
