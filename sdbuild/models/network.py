"""Networks: found by its component, built weightless or with its weights."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from sdbuild.base.errors import SDBuildError, SourceError
from sdbuild.checkpoints.normalized import Architecture as Architecture
from sdbuild.families import Component, Dims
from sdbuild.families.nouns import Precision
from sdbuild.models import decoded
from sdbuild.models.parameters import NET, by_parameter
from sdbuild.safetensors.decode import to_array
from sdbuild.safetensors.derived import Derived
from sdbuild.safetensors.shapes import check_fit
from sdbuild.safetensors.tensors import table


def precision(component: Component, architecture: Architecture) -> Precision:
    """Returns the precision of the component's network: the family's, unless the checkpoint says
    that fp16 will do."""
    return component.precision if architecture.force_upcast else "fp16"


def module(component: Component) -> ModuleType:
    """Returns the module in `sdbuild/models/` that builds the component's network."""
    return importlib.import_module(f"sdbuild.models.{component.network}")


def unwrapped(net: nn.Module, name: str) -> nn.Module:
    """Returns the network that CLIP's classes held in a field of that name before transformers 5.6.

    Later ones are that network themselves; the names of its tensors are the same then.
    """
    return getattr(net, name, net)


def expect_class(architecture: Architecture, *known: str) -> None:
    """Refuses a network that a component does not know.

    Raises:
        SourceError: names the class that was found and those that are known.
    """
    if architecture.class_name not in known:
        raise SourceError(
            f"the checkpoint's network is {architecture.class_name}, "
            f"expected {' or '.join(known)}"
        )


def weightless(component: Component, architecture: Architecture) -> nn.Module:
    """Returns the component's network on the meta device: shapes without numbers.

    Raises:
        SourceError: the config does not make a network.
    """
    try:
        with torch.device("meta"):
            return module(component).build(component, architecture).eval()
    except SDBuildError:
        raise
    except Exception as error:  # diffusers and transformers raise whatever they meet
        raise SourceError(
            f"{component.name}: its config.json does not make a network: "
            f"{type(error).__name__}: {error}",
            hint="it must be the config that the weights were saved with",
        ) from error


def laid_out(network: nn.Module, attention: str) -> nn.Module:
    """Returns the network as `attention` lays it out, with the same parameters.

    Raises:
        SourceError: the layout does not know a part of the network.
    """
    if attention == "original":
        return network
    return importlib.import_module(f"sdbuild.models.{attention}").lay_out(network)


def weighted(component: Component, architecture: Architecture, weights: Path) -> nn.Module:
    """Returns the component's network with its weights, computing in fp32. Large weights stay in
    the file (`decoded.py`)."""
    network = weightless(component, architecture)
    decoded.load(network, _stored(component, network.state_dict(), weights))
    return network


def bind(
    component: Component, wanted: Mapping[str, torch.Tensor], weights: Path
) -> dict[str, torch.Tensor]:
    """Returns the checkpoint's tensor, in fp32, for each parameter that the network wants.

    Raises:
        SourceError: a tensor is missing or has another shape; all are named.
    """
    return {name: tensor.float() for name, tensor in _stored(component, wanted, weights).items()}


def _stored(
    component: Component, wanted: Mapping[str, torch.Tensor], weights: Path
) -> dict[str, torch.Tensor]:
    """Returns the checkpoint's tensor for each parameter as it is stored, memory-mapped; derived
    ones in fp32."""
    shapes = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    try:
        loaded = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise SourceError(f"{component.name}: its weights cannot be read: {error}") from error
    tensors = by_parameter(component, table([weights]).values(), shapes)
    check_fit(component.name, _bare(shapes), _bare({n: t.shape for n, t in tensors.items()}))
    return {name: torch.from_numpy(to_array(tensors[name]).astype(np.float32))
            if isinstance(tensors[name], Derived) else loaded[tensors[name].name]
            for name in wanted}


def _bare(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix(NET): shape for name, shape in shapes.items()}


def input_shapes(
    component: Component, architecture: Architecture, dims: Dims
) -> list[tuple[int, ...]]:
    """Returns the shapes of the component's inputs, numbered ones last."""
    found = [port.sized(dims) for port in component.inputs if not port.is_numbered]
    if not component.inputs[-1].is_numbered:
        return found
    return [*found, *module(component).residuals(architecture.config, dims)]


def dims(component: Component, architecture: Architecture, params: Mapping[str, Any]) -> Dims:
    """Returns the numbers of the component's port shapes; a step's `params` have the sizes that
    they depend on."""
    return module(component).dims(
        component, architecture.config, **{name: params[name] for name in component.sizes}
    )
