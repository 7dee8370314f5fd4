"""Connects to the workers: a cluster started on this machine, or a running one by its address.

A scheduler and its workers run whatever reaches them, for anybody, and listen on all addresses by
default. So they are used on this machine alone, or with TLS and certificates of both sides.
"""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dask
from distributed import Client, LocalCluster, Security

from sdbuild.base.errors import RecipeError, StepError
from sdbuild.base.parsing import shown

HERE = "dask"
"""The word for a cluster on this machine."""

_LOOPBACK = "127.0.0.1"
_PATIENCE_S = 30
_TLS = ("DASK_DISTRIBUTED__COMM__TLS__CA_FILE", "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT",
        "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster that answers; one that `is_here` works in this machine's store."""

    client: Any
    is_here: bool


@contextmanager
def connected(address: str, jobs: int) -> Iterator[Cluster]:
    """Gives the cluster at an address, or starts one here for as long as it is used.

    Args:
        jobs: the steps that run at a time on a cluster here.

    Raises:
        RecipeError: the address is none, or others on the network can reach it without TLS.
        StepError: nothing answers.
    """
    check_address(address)
    if address == HERE:
        with (dask.config.set({"distributed.worker.daemon": False}),
              LocalCluster(n_workers=1, threads_per_worker=jobs, processes=True, host=_LOOPBACK,
                           dashboard_address=f"{_LOOPBACK}:0", memory_limit=0,
                           silence_logs=50) as cluster, Client(cluster) as client):
            yield Cluster(client=client, is_here=True)
        return
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what fails is told by us
    security = Security(require_encryption=True) if address.startswith("tls://") else None
    try:
        client = Client(address, security=security, timeout=_PATIENCE_S)
    except (OSError, TimeoutError) as error:
        raise StepError(f"--on {address}: no scheduler answers: {error}",
                        hint="start one: dask scheduler --host 127.0.0.1") from None
    with client:
        for each in (client.scheduler.address, *client.scheduler_info(n_workers=-1)["workers"]):
            _check_listens_apart(each)
        yield Cluster(client=client, is_here=False)


def check_address(address: str) -> None:
    """Makes sure that nobody else can reach what an address stands for.

    Raises:
        RecipeError: somebody can, or it is no address.
    """
    if address == HERE:
        return
    scheme, _, place = address.partition("://")
    host, _, port = place.rpartition(":")
    if scheme not in ("tcp", "tls") or not host or not port.isdigit():
        raise RecipeError(f"--on {shown(address)}: expected {HERE}, tcp://{_LOOPBACK}:PORT or "
                          "tls://HOST:PORT", hint=f"--on {HERE} starts workers on this machine")
    if scheme == "tcp":
        _check_listens_apart(address)
    elif not all(dask.config.get(f"distributed.comm.tls.{name}", None)
                 for name in ("ca-file", "client.cert", "client.key")):
        raise RecipeError(f"--on {address}: no certificates are named", hint=f"set {_TLS[0]}, "
                          f"{_TLS[1]} and {_TLS[2]}, or the same in Dask's configuration")


def _check_listens_apart(address: str) -> None:
    scheme, _, place = address.partition("://")
    host = place.rpartition(":")[0].strip("[]")
    if scheme != "tcp" or host == "localhost":
        return
    try:
        is_apart = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_apart = False
    if not is_apart:
        raise RecipeError(
            f"--on: {address} is open to the network: anyone who reaches it can run programs there",
            hint="start scheduler and workers with --host 127.0.0.1, or with TLS (tls://HOST:PORT)")


def jobs_here() -> int:
    """Returns how many steps run at a time on this machine, unless the command line says."""
    return max(1, (os.cpu_count() or 2) // 2)
