"""Tracing without the parts of torch that serve people who look at graphs between its passes.

The graph's bytes are the same. Where this torch has no such function, it goes on as it does alone.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from torch.fx import GraphModule, config

_STACK_TRACES = "do_not_emit_stack_traces"


@contextlib.contextmanager
def sparing() -> Iterator[None]:
    """Leaves out, for a while, what took a quarter of the time of a trace:

    - the stack of Python's calls at each operation, which `trace` takes out of the graph;
    - the Python code of each graph between two passes, written and compiled eighteen times: it is
      when it is called, which it hardly ever is;
    - the form of a graph in which two can be compared, made of a copy and thrown away on writing.
    """
    from torch._export.serde import serialize

    with contextlib.ExitStack() as originals:
        if hasattr(config, _STACK_TRACES):
            originals.callback(setattr, config, _STACK_TRACES, getattr(config, _STACK_TRACES))
            setattr(config, _STACK_TRACES, True)
        _replace(originals, GraphModule, "recompile", ("self",), _when_called)
        _replace(originals, serialize, "canonicalize", ("ep", "constants"),
                 lambda original: lambda ep, constants=None: ep)
        yield


def _replace(
    originals: contextlib.ExitStack, owner: Any, name: str, parameters: tuple[str, ...],
    replacement: Callable[[Any], Any],
) -> None:
    """Replaces a function until the context ends, if it takes these parameters."""
    original = vars(owner).get(name)
    if original is None or tuple(inspect.signature(original).parameters) != parameters:
        return
    originals.callback(setattr, owner, name, original)
    setattr(owner, name, replacement(original))


def _when_called(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def recompile(module: Any) -> Any:
        kind = type(module)
        if module.graph._codegen.__class__.__name__ != "CodeGen":
            return original(module)  # its inputs are packed in a way that callers look up

        def forward(module: Any, *inputs: Any, **named: Any) -> Any:
            original(module)
            return kind.forward(module, *inputs, **named)
        kind.forward = forward
        return None
    return recompile
