"""The schedule of noise in a scheduler's config: checked wherever a config comes from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdbuild.base.parsing import Error, Fields, shown

MOST_TIMESTEPS = 10_000
"""Models have 1,000; schedulers hold several tables of this length."""

_LEAST_SHIFT = 1e-3


FLOW = "flow_prediction"
"""The prediction type of networks trained by flow matching, by diffusers' name."""


def predicts(config: Mapping[str, Any]) -> Any:
    """Returns what a scheduler's config says of the network: where it is silent, a flow if the
    scheduler is for flows, and else noise."""
    is_flow = str(config.get("_class_name")).startswith("FlowMatch")
    return config.get("prediction_type", FLOW if is_flow else "epsilon")


def check_schedule(config: Mapping[str, Any], where: str, error: Error) -> None:
    """Makes sure that a config can be a scheduler's: its fields have their types, and no number
    makes diffusers ask for memory without end. Fields that are not known keep their values.

    Raises:
        error: names the field, its value and what is expected.
    """
    fields = Fields(config, where, error)
    fields.integer("num_train_timesteps", low=1, high=MOST_TIMESTEPS, default=None)
    for name in ("beta_start", "beta_end"):
        fields.number(name, low=0, high=1, default=None)
    fields.number("shift", low=_LEAST_SHIFT, high=1 / _LEAST_SHIFT, default=None)
    for name in ("beta_schedule", "prediction_type", "timestep_spacing"):
        fields.text(name, default=None)
    fields.flag("rescale_betas_zero_snr", default=None)
    betas = fields.listed("trained_betas", int, float, default=None) or ()
    if len(betas) > MOST_TIMESTEPS:
        raise error(f"{where}: trained_betas has {len(betas)} numbers, "
                    f"expected at most {MOST_TIMESTEPS}")
    for name, value in config.items():
        if value != value or (type(value) is int and abs(value) > MOST_TIMESTEPS):
            raise error(f"{where}: {shown(name)} is {shown(value)}, "
                        f"expected at most {MOST_TIMESTEPS}")
