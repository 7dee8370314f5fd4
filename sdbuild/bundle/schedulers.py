"""The schedulers that pictures are generated with, as data: their names here and elsewhere.

To add one is to add a line here, if diffusers has it. A name may end with the spacing of its
sigmas: `dpm_karras`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Scheduler:
    """A scheduler: our name, diffusers' class, and what its config must say beside.

    `others` are its names in AUTOMATIC1111's web UI and the apps that follow it. `is_flow` says
    whether it is for networks that predict a flow, `has_sigmas` whether the sigmas can be spaced,
    and `adds_noise` whether it adds noise in each step.
    """

    name: str
    kind: str
    others: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    has_sigmas: bool = True
    is_flow: bool = False
    adds_noise: bool = False


_ALL = (
    Scheduler("ddim", "DDIMScheduler", ("DDIM",), has_sigmas=False),
    Scheduler("ddpm", "DDPMScheduler", ("DDPM",), has_sigmas=False, adds_noise=True),
    Scheduler("deis", "DEISMultistepScheduler", ("DEIS",), {"algorithm_type": "deis"}),
    Scheduler("dpm", "DPMSolverMultistepScheduler", ("DPM++ 2M", "dpmpp", "dpmpp_2m"),
              {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    Scheduler("dpm_3m", "DPMSolverMultistepScheduler", ("DPM++ 3M", "dpmpp_3m"),
              {"algorithm_type": "dpmsolver++", "solver_order": 3}),
    Scheduler("dpm_sde", "DPMSolverMultistepScheduler", ("DPM++ 2M SDE", "dpmpp_2m_sde"),
              {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}, adds_noise=True),
    Scheduler("dpm_single", "DPMSolverSinglestepScheduler", ("DPM++ 2S", "dpmpp_2s"),
              {"algorithm_type": "dpmsolver++"}),
    Scheduler("dpm_single_sde", "DPMSolverSinglestepScheduler", ("DPM++ SDE", "dpmpp_sde"),
              {"algorithm_type": "sde-dpmsolver++"}, adds_noise=True),
    Scheduler("dpm2", "KDPM2DiscreteScheduler", ("DPM2", "dpm_2", "kdpm2")),
    Scheduler("dpm2_a", "KDPM2AncestralDiscreteScheduler",
              ("DPM2 a", "dpm_2_ancestral", "kdpm2_a"), adds_noise=True),
    Scheduler("euler", "EulerDiscreteScheduler", ("Euler", "k_euler")),
    Scheduler("euler_a", "EulerAncestralDiscreteScheduler",
              ("Euler a", "euler_ancestral", "k_euler_a"), has_sigmas=False, adds_noise=True),
    Scheduler("flow_euler", "FlowMatchEulerDiscreteScheduler", ("flow",), is_flow=True),
    Scheduler("flow_heun", "FlowMatchHeunDiscreteScheduler", is_flow=True, has_sigmas=False),
    Scheduler("heun", "HeunDiscreteScheduler", ("Heun", "k_heun")),
    Scheduler("lcm", "LCMScheduler", ("LCM",), has_sigmas=False, adds_noise=True),
    Scheduler("lms", "LMSDiscreteScheduler", ("LMS", "k_lms")),
    Scheduler("pndm", "PNDMScheduler", ("PLMS", "PNDM"), has_sigmas=False),
    Scheduler("sa", "SASolverScheduler", ("SA-Solver", "sa_solver"), adds_noise=True),
    Scheduler("tcd", "TCDScheduler", ("TCD",), has_sigmas=False, adds_noise=True),
    Scheduler("unipc", "UniPCMultistepScheduler", ("UniPC",)),
)
SCHEDULERS = {scheduler.name: scheduler for scheduler in _ALL}

SIGMAS = {"karras": "use_karras_sigmas", "exponential": "use_exponential_sigmas"}
"""Suffixes of a scheduler's name, and the field of diffusers' config that each sets."""


def _plain(name: str) -> str:
    """Returns a name without what its spellings differ in: `DPM++ 2M` and `dpmpp_2m` are one."""
    return re.sub(r"[\s_-]+", "", name.lower().replace("++", "pp"))


_NAMES = {_plain(other): s.name for s in _ALL for other in (s.name, *s.others)}
_KNOWN = _NAMES | {f"{plain}{sigmas}": f"{name}_{sigmas}" for plain, name in _NAMES.items()
                   for sigmas in SIGMAS if SCHEDULERS[name].has_sigmas}


def canonical(name: str) -> str | None:
    """Our name of a scheduler, however it is spelled; None if it is unknown."""
    return _KNOWN.get(_plain(name))


def parts(name: str) -> tuple[Scheduler, str]:
    """Returns the scheduler of one of our names, and the spacing of sigmas that the name ends
    with."""
    if name in SCHEDULERS:
        return SCHEDULERS[name], ""
    base, _, sigmas = name.rpartition("_")
    return SCHEDULERS[base], sigmas
