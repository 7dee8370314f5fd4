"""The process that steps are forked from: `python -m sdbuild.steps._forks LISTENER IDLE_S`.

LISTENER is a socket. Each connection to it asks for one step, brings the pipe for its progress and
its log, and is told of its process. Standard input is a pipe from whoever started this: when it
closes there is no reason to go on. Who asks: `sdbuild.engine.forks`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sdbuild.base.garbage import leave
from sdbuild.base.parsing import Malformed, json_object
from sdbuild.engine.forks import LARGEST_BYTES, is_ours
from sdbuild.steps.__main__ import main

_SLOW = {
    "torch": ("torch.export", "torch._dynamo"),
    "diffusers": ("diffusers.models.unets.unet_2d_condition",
                  "diffusers.models.autoencoders.autoencoder_kl"),
    "transformers": ("transformers.models.clip.modeling_clip",),
    "coremltools": ("coremltools",),
}
"""The modules of tools that take longest to import. None of them starts a thread."""


def serve(listener: socket.socket, idle_s: float) -> None:
    """Forks a process for each connection, until none comes for so long and no step runs."""
    gc.disable()  # imports make no garbage, and collections are a third of their time
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who builds gets it too, and ends the steps
    parent, environment = sys.stdin.fileno(), dict(os.environ)
    while True:
        ready, _, _ = select.select([listener, parent], [], [], idle_s)
        if parent in ready or (_is_idle() and not ready):
            return
        if ready:
            channel, _ = listener.accept()
            with channel, suppress(Malformed):  # who asks is told nothing, and does without
                _answer(listener, channel, environment)


def _answer(
    listener: socket.socket, channel: socket.socket, environment: Mapping[str, str],
) -> None:
    """Forks the process that one connection asks for, if it may ask and has the environment that
    this process was started in: libraries look at it, and change it, when they are imported."""
    message, files, _, _ = socket.recv_fds(channel, LARGEST_BYTES, 2)
    try:
        if not is_ours(channel) or len(files) != 2:
            return
        request = json_object(message, "a request", Malformed, has_controls=True)
        if request["environment"] != environment:
            return
        _import(request["tools"])
        if os.fork() == 0:
            listener.close()
            _watch(request, channel, *files)
    finally:
        for file in files:
            os.close(file)


def _import(tools: list[str]) -> None:
    for tool in tools:
        for module in _SLOW.get(tool, ()):
            with suppress(ImportError):  # the step will say so
                importlib.import_module(module)
    gc.freeze()  # imported modules stay, so steps need not collect them


def _is_idle() -> bool:
    """Whether no step is running."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return False
    return True


def _watch(request: Mapping[str, Any], channel: socket.socket, writer: int, log: int) -> None:
    """Runs a step in a child of this process, and tells of it."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for file, number in ((channel.fileno(), 0), (log, 1), (log, 2)):
            os.dup2(file, number)
        channel.close()
        os.chdir(request["folder"])
        gc.enable()
        leave(main(request["kind"], Path(request["work"]), writer))
    with suppress(OSError):  # nobody listens any more
        channel.send(json.dumps({"pid": pid}).encode())
        _, status, usage = os.wait4(pid, 0)
        channel.send(json.dumps({"status": status, "max_rss": usage.ru_maxrss}).encode())
    os._exit(0)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as given:
        serve(given, float(sys.argv[2]))
