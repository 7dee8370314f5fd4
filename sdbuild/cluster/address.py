"""Connects to the workers: a cluster started on this machine, or a running one by its address.

A scheduler and its workers run whatever reaches them, for anybody, and listen on all addresses by
default. So they are used on this machine alone, or with TLS and certificates of both sides.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster, Security

from sdbuild.base.errors import RecipeError, StepError
from sdbuild.base.parsing import shown

HERE = "dask"
"""The word for a cluster on this machine."""

_LOOPBACK = "127.0.0.1"
_PATIENCE_S = 30
_TLS = {"ca-file": "DASK_DISTRIBUTED__COMM__TLS__CA_FILE",
        "client.cert": "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT",
        "client.key": "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY"}
"""Dask's names of the files for TLS, and the variables that set them."""


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
        with dask.config.set({"distributed.worker.daemon": False}):
            with _ignoring_sigint():
                cluster = LocalCluster(
                    n_workers=1, threads_per_worker=jobs, processes=True, host=_LOOPBACK,
                    dashboard_address=f"{_LOOPBACK}:0", memory_limit=0, silence_logs=50)
            with cluster, Client(cluster) as client:
                yield Cluster(client=client, is_here=True)
        return
    # Failures are reported as StepFailed.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    security = Security(require_encryption=True) if address.startswith("tls://") else None
    try:
        client = Client(address, security=security, timeout=_PATIENCE_S)
    except (OSError, TimeoutError) as error:
        is_stranger = "certificate" in str(error).lower()
        raise StepError(
            f"--on {address}: no scheduler answers: {error}",
            hint="both sides need certificates of one authority, that of --tls-ca-file"
            if is_stranger else "start one: dask scheduler --host 127.0.0.1") from None
    with client:
        for each in (client.scheduler.address, *client.scheduler_info(n_workers=-1)["workers"]):
            _check_listens_apart(each)
        yield Cluster(client=client, is_here=False)


@contextmanager
def _ignoring_sigint() -> Iterator[None]:
    """Starts processes with SIGINT ignored. A terminal sends Ctrl-C to the whole process group, and
    Dask's processes would print tracebacks; this process closes them instead."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


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
    else:
        _check_certificates(address)


def _check_certificates(address: str) -> None:
    for name, variable in _TLS.items():
        file = dask.config.get(f"distributed.comm.tls.{name}", None)
        if not file:
            raise RecipeError(f"--on {address}: no certificates are named", hint="set "
                              f"{', '.join(_TLS.values())}, or the same in Dask's configuration")
        if not Path(file).is_file():
            raise RecipeError(f"--on {address}: {shown(Path(file))} is no file", hint=f"it is what "
                              f"{variable} or Dask's configuration names for TLS")


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
