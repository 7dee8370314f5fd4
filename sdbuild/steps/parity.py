"""parity: what the compiled component computes, measured against its PyTorch original.

The inputs are seeded and as in use; the original computes in fp32. PSNR is in dB, relative to the
largest value of the original.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdbuild.base.filenames import contents
from sdbuild.checkpoints.normalized import (
    ARCHITECTURE,
    LATENTS,
    WEIGHTS,
    read_architecture,
    read_latents,
)
from sdbuild.engine.stage import ComponentStage, Job, Memory, Need, Time
from sdbuild.families import Component
from sdbuild.mil.files.suffixes import COMPILED, PACKAGE
from sdbuild.recipe.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    import torch

    from sdbuild.checkpoints.normalized import Architecture
    from sdbuild.families import Dims

    Samples = Sequence[tuple[torch.Tensor, ...]]
    Outputs = list[tuple[np.ndarray, ...]]

PARITY = "parity.json"
_SEED = 20_240_229
_WORKING_BYTES = 1_000_000_000
"""Of torch and what passes through the networks, as the stages' `memory` has it."""


class Parity(ComponentStage):
    """Measures a compiled component; of finished packages, against the one that it was."""

    version = 4
    summary = "measure each compiled component against its PyTorch original"
    memory = Memory(1_000_000_000, 4.0)       # most weights of the program decoded
    most_memory = Memory(2_000_000_000, 4.0)  # all weights of the program decoded
    time = Time(5, billion=30)
    tools = ("torch", "diffusers", "transformers", "numpy")
    gives = "parity"
    is_sized = True

    def needs(self, recipe: Recipe) -> dict[str, Need]:
        """Returns the artifacts that are compared."""
        return {"compiled": Need("compiled"), "checkpoint": Need("checkpoint")}

    def params(self, recipe: Recipe, component: Component) -> dict[str, Any]:
        """Returns the settings that determine the samples, besides the architecture."""
        function = recipe.network.function_of(component)
        return {
            "family": recipe.family.name, "component": component.name,
            **recipe.network.params_of(component), "seed": _SEED,
            **({"lower": recipe.packaging.lower} if recipe.is_of_packages else {}),
            **({"function": function} if function else {}),
        }

    def run(self, job: Job) -> None:
        """Writes `parity.json`: for each output its worst PSNR, and what is not finite."""
        import numpy as np

        from sdbuild.families import FAMILIES
        from sdbuild.runtime.predictor import load

        component = FAMILIES[job.params["family"]].component(job.params["component"])
        of_kind = _of_package if "lower" in job.params else _of_checkpoint
        samples, originals = of_kind(component, job)
        models = contents(job.inputs["compiled"], COMPILED)
        function = job.params.get("function")
        chain = load(models, "portable", "original", weight_bytes(job), function)
        found: list[dict[str, Any]] = []
        nonfinite: list[str] = []
        component = component.with_ports(len(samples[0]), len(originals[0]))
        for number, (inputs, wanted) in enumerate(zip(samples, originals, strict=True)):
            given = {p.name: t.numpy() for p, t in zip(component.inputs, inputs, strict=True)}
            made = chain.predict(given)
            found += [
                {"sample": number, "output": port.name, **_compare(made[port.name], array)}
                for port, array in zip(component.outputs, wanted, strict=True)
            ]
            if not all(np.isfinite(array).all() for array in made.values()):
                nonfinite.append(_first_nonfinite(models, given, function))
        report = {"samples": found, "nonfinite": nonfinite}
        (job.output / PARITY).write_text(json.dumps(report, indent=1), "utf-8")


STAGE = Parity()


def _samples(
    component: Component, config: Mapping[str, Any], dims: Dims, job: Job
) -> list[tuple[torch.Tensor, ...]]:
    """Returns what a component is measured on."""
    import torch

    from sdbuild.models import network

    rng = torch.Generator().manual_seed(job.params["seed"])
    config = {**config, **read_latents(job.inputs["checkpoint"] / LATENTS)}
    return list(network.module(component).samples(component, config, dims, rng))


def _of_checkpoint(component: Component, job: Job) -> tuple[Samples, Outputs]:
    """Returns the samples, and what the PyTorch original makes of each."""
    from sdbuild.models import network

    checkpoint = job.inputs["checkpoint"]
    architecture = read_architecture(checkpoint / ARCHITECTURE, job.params)
    dims = network.dims(component, architecture, job.params)
    samples = _samples(component, architecture.config, dims, job)
    return samples, _originals(component, architecture, checkpoint / WEIGHTS, samples)


def _of_package(component: Component, job: Job) -> tuple[Samples, Outputs]:
    """Returns the samples, and what the package that the recipe began with makes of each."""
    from sdbuild.bundle.finished import TOKENS, dims_of
    from sdbuild.mil.execute.execute import Executor
    from sdbuild.mil.files.package import read_package

    model = read_package(job.inputs["checkpoint"] / (component.bundle_name + PACKAGE))
    samples = _samples(component, {"vocab_size": TOKENS}, dims_of(model, component), job)
    executor = Executor(model, weight_bytes=weight_bytes(job))
    made = [executor.predict({port.name: value.numpy() for port, value
                              in zip(component.inputs, inputs, strict=True)})
            for inputs in samples]
    return samples, [tuple(found[port.name] for port in component.outputs) for found in made]


def _originals(
    component: Component, architecture: Architecture, weights: Path, samples: Samples,
) -> Outputs:
    """Returns the original's outputs for each sample. It is freed before the program's weights
    load."""
    import torch

    from sdbuild.models import network

    original = network.weighted(component, architecture, weights)
    with torch.inference_mode():
        made = [original(*inputs) for inputs in samples]
    return [tuple(t.numpy() for t in (m if isinstance(m, tuple) else (m,))) for m in made]


def weight_bytes(job: Job) -> int | None:
    """Returns the decoded weights that fit into what the step may hold, in bytes; None if all."""
    if "memory_bytes" not in job.resources:
        return None
    return max(0, job.resources["memory_bytes"] - _WORKING_BYTES)


def _first_nonfinite(
    models: Sequence[Path], inputs: dict[str, np.ndarray], function: str | None
) -> str:
    """Returns the first operation that made NaN or infinity, in models that run in a row."""
    from sdbuild.mil.execute.execute import Executor, first_nonfinite
    from sdbuild.mil.files.package import input_shapes
    from sdbuild.mil.files.read import read_model

    values = dict(inputs)
    for path in models:
        model = read_model(path)
        needed = {name: values[name] for name in input_shapes(model.described(function))}
        found = first_nonfinite(model, needed, function=function)
        if found is not None:
            return f"{path.name}: {found}"
        values |= Executor(model, function=function).predict(needed)
    return "no operation made NaN or infinity: the inputs hold some"


def _compare(made: np.ndarray, wanted: np.ndarray) -> dict[str, Any]:
    """PSNR in dB (None if nothing differs, or if not all is finite) and the largest error."""
    import numpy as np

    if not np.isfinite(made).all():
        return {"psnr_db": None, "max_error": None, "is_finite": False}
    error = made.astype(np.float64) - wanted
    rms = float(np.sqrt(np.mean(error**2)))
    psnr = 20 * np.log10(np.abs(wanted).max() / rms) if rms else None
    return {
        "psnr_db": psnr and round(float(psnr), 2), "max_error": float(np.abs(error).max()),
        "is_finite": True,
    }
