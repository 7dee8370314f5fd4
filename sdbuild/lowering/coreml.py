"""The door to coremltools' converter: an exported program in, a Core ML model out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import coremltools as ct
import numpy as np
import torch
from coremltools.converters.mil.mil import types

from sdbuild.base.errors import SDBuildError, StepError
from sdbuild.base.garbage import rare_searches
from sdbuild.base.progress import each
from sdbuild.base.versions import public_torch
from sdbuild.families import Component
from sdbuild.families.nouns import Precision
from sdbuild.lowering.ordered import ordered_sets
from sdbuild.mil.ir.proto import Message, messages

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation

_TYPES = {"fp16": np.float16, "fp32": np.float32}

_PASSES_LEFT_OUT = ("common::const_deduplication",)
"""Two tensors that happen to be equal in one checkpoint are two tensors in the next."""


@public_torch()
@rare_searches()
def lower(
    program: torch.export.ExportedProgram, weights: Mapping[str, torch.Tensor],
    component: Component, target: str, precision: Precision = "fp16",
) -> tuple[Message, Path]:
    """The Core ML model of a graph with these weights: its message, without the day it was made
    and the kind of build that torch is, and its weight file.

    The weight file goes when the process ends.

    Args:
        precision: of what it computes.

    Raises:
        StepError: coremltools cannot lower the graph.
    """
    program._state_dict = dict(weights)
    signature = program.graph_signature
    component = component.with_ports(len(signature.user_inputs), len(signature.user_outputs))
    try:
        with ordered_sets():
            model = ct.convert(
                program,
                inputs=_inputs(program, component),
                outputs=[ct.TensorType(name=port.name, dtype=_TYPES[port.dtype])
                         for port in component.outputs],
                minimum_deployment_target=getattr(ct.target, target),
                compute_precision=_precision(precision),
                pass_pipeline=_pipeline(),
                convert_to="mlprogram",
                skip_model_load=True,
            )
    except SDBuildError:
        raise
    except Exception as error:  # coremltools raises whatever its passes meet
        raise StepError(
            f"{component.name}: coremltools cannot lower the graph: "
            f"{type(error).__name__}: {error}",
            hint="constraints.txt names the versions that are known to work",
        ) from error
    # Kept alive with the process: its temporary folder, which holds the weights, goes with it.
    _models.append(model)
    spec = messages("Model").Model.FromString(model.get_spec().SerializeToString())
    del spec.description.metadata.userDefined["com.github.apple.coremltools.conversion_date"]
    return spec, Path(model.weights_dir) / "weight.bin"


_models: list[Any] = []


def _inputs(program: torch.export.ExportedProgram, component: Component) -> Sequence[Any]:
    names = program.graph_signature.user_inputs
    shapes = [tuple(n.meta["val"].shape) for n in program.graph.nodes if n.name in names]
    return [
        ct.TensorType(name=port.name, shape=shape, dtype=_TYPES[port.dtype])
        for port, shape in zip(component.inputs, shapes, strict=True)
    ]


class _Reported(list[str]):
    """The names of passes, which reports how many of them have begun."""

    def __iter__(self) -> Iterator[str]:
        return each(super().__iter__(), "passes", len(self))


def _precision(name: Precision) -> Any:
    if name == "fp32":
        return ct.precision.FLOAT32
    return ct.transform.FP16ComputePrecision(
        op_selector=_is_of_matrices if name == "mixed" else _bears_fp16())


def _pipeline() -> ct.PassPipeline:
    passes = ct.PassPipeline.DEFAULT.passes
    return ct.PassPipeline(_Reported(name for name in passes if name not in _PASSES_LEFT_OUT))


_FP32_INTO = ("sin", "cos", "reduce_l2_norm")
"""Computed in fp32 with what goes into them. Timestep × frequency reaches 1000, where fp16 is 0.5
radians apart."""

_FP32_FROM = ("reduce_l2_norm",)
"""Computed in fp32 with all that follows from them: the cosines between embeddings that a safety
checker compares with its thresholds."""


_MATRICES = ("linear", "matmul", "softmax", "gather")
"""Computed in fp16 where all between them is in fp32: they have the weights, or take the time."""


def _is_of_matrices(operation: Operation) -> bool:
    return operation.op_type in _MATRICES


def _moves_fp32(operation: Operation) -> bool:
    """Whether it gives an input that is declared fp32 as it is, in another shape."""
    return operation.op_type in ("expand_dims", "reshape") and operation.x.op is None \
        and operation.x.dtype == types.fp32


def _bears_fp16() -> Callable[[Operation], bool]:
    """Reports operations, in the order of their program, whether fp16 will do for them."""
    @functools.cache
    def follows(operation: Operation) -> bool:
        return operation.op_type in _FP32_FROM or any(
            follows(var.op) for var in operation.get_flattened_inputs() if var.op is not None
        )

    def bears_fp16(operation: Operation) -> bool:
        after = [c for output in operation.outputs for c in output.child_ops]
        if _moves_fp32(operation):
            after += [c for op in after for output in op.outputs for c in output.child_ops]
        near = {operation.op_type, *(c.op_type for c in after)}
        return near.isdisjoint(_FP32_INTO) and not follows(operation)

    return bears_fp16
