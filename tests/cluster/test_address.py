"""Addresses of workers: this machine, or behind TLS; nothing that others can reach."""

import signal

import pytest

from sdbuild.base.errors import RecipeError
from sdbuild.cluster.address import HERE, check_address, connected

REFUSED = {
    "tcp://10.0.0.3:8786": "tcp://10.0.0.3:8786 is open to the network",
    "tcp://0.0.0.0:8786": "tcp://0.0.0.0:8786 is open to the network",
    "tcp://[::]:8786": "is open to the network",
    "tcp://builder.example.org:8786": "is open to the network",
    "tls://10.0.0.3:8786": "no certificates are named",
    "10.0.0.3:8786": "expected dask, tcp://127.0.0.1:PORT or tls://HOST:PORT",
    "tcp://127.0.0.1": "expected dask",
    "ucx://127.0.0.1:8786": "expected dask",
    "Dask": "expected dask",
    "": "expected dask",
}


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_others_can_reach_is_refused_before_anything_connects(address):
    with pytest.raises(RecipeError) as raised:
        check_address(address)
    assert REFUSED[address] in raised.value.message
    assert raised.value.hint


@pytest.mark.parametrize("address", [
    "dask", "tcp://127.0.0.1:8786", "tcp://localhost:8786", "tcp://[::1]:8786", "tcp://127.1.2.3:1",
])
def test_this_machine_alone_needs_no_certificates(address):
    check_address(address)


@pytest.mark.parametrize(("missing", "refused"), [(None, None), ("key.pem", "key.pem is no file")])
def test_tls_is_taken_with_certificates_of_both_sides(missing, refused, tmp_path):
    import dask

    files = {"ca-file": "ca.pem", "client.cert": "cert.pem", "client.key": "key.pem"}
    for name in files.values():
        if name != missing:
            (tmp_path / name).touch()
    with dask.config.set({f"distributed.comm.tls.{name}": str(tmp_path / file)
                          for name, file in files.items()}):
        if refused is None:
            check_address("tls://10.0.0.3:8786")
        else:
            with pytest.raises(RecipeError, match=refused):
                check_address("tls://10.0.0.3:8786")


@pytest.mark.slow
def test_ctrl_c_on_a_terminal_ends_no_worker_of_this_machine_by_itself():
    """It reaches all processes of the terminal; Dask's would print tracebacks."""
    before = signal.getsignal(signal.SIGINT)
    with connected(HERE, 1) as cluster:
        handlers = cluster.client.run(signal.getsignal, signal.SIGINT)

    assert list(handlers.values()) == [signal.SIG_IGN]
    assert signal.getsignal(signal.SIGINT) == before
