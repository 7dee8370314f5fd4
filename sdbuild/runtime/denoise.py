"""The steps of a picture: predictions of U-Nets, with guidance, ControlNets and masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sdbuild.bundle.hosts import HOSTS
from sdbuild.bundle.manifest import Bundle
from sdbuild.bundle.request import Request
from sdbuild.runtime.networks import CONTROLLED, Networks
from sdbuild.runtime.prompts import Condition
from sdbuild.runtime.starts import Start
from sdbuild.runtime.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide:
    """A ControlNet, the picture that it is given, and how strongly it counts.

    Shapes:
        picture: (1, 3, H, W).
    """

    component: str
    picture: np.ndarray
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoiser:
    """Takes the noise from the latents of pictures.

    Args:
        conditions: each denoiser's inputs made from the prompts.
        guides: ControlNets; with some, the U-Net is the one that takes what they give. It may also
            be the only one, and is given nothing then.
    """

    bundle: Bundle
    networks: Networks
    request: Request
    conditions: Mapping[str, Condition]
    guides: Sequence[Guide] = ()

    def run(
        self, start: Start, progress: Callable[[int], object], trace: Trace,
        show: Callable[[int, torch.Tensor], object],
    ) -> torch.Tensor:
        """Returns the latents of a picture; after each step but the last, `show` takes its number
        and what the clean latents look like by then.

        Shapes:
            returns (1, C, h, w).
        """
        schedule, sample = start.schedule, start.latents
        self._trace_start(start, trace)
        for index in range(len(schedule.timesteps)):
            noise = self._guided(start, sample, index)
            sample = schedule.step(noise, index, sample)
            trace(f"noise_pred_step{index}", noise.numpy())
            trace(f"latents_step{index}", sample.numpy())
            if start.mask is not None:
                sample = start.mask.kept(schedule, index, sample)
            progress(len(schedule.timesteps))
            if index + 1 < len(schedule.timesteps):
                show(index + 1, schedule.clean(sample))
        return schedule.result(sample)

    def _trace_start(self, start: Start, trace: Trace) -> None:
        networks = self.networks
        embeddings = self.conditions[networks.base][networks.ports.prompt]
        negative, prompt = embeddings[:, :, 0].transpose(0, 2, 1)
        trace("neg_embeddings", negative[None])
        trace("text_embeddings", prompt[None])
        trace("initial_latents", start.latents.numpy())
        trace("timesteps", np.array([float(t) for t in start.schedule.timesteps]))

    def _guided(self, start: Start, sample: torch.Tensor, index: int) -> torch.Tensor:
        """Returns the prediction of a step: that of the negative prompt, and towards that of the
        prompt."""
        host, request = HOSTS[self.request.host], self.request
        is_guided = host.is_guided(request.guidance, self.bundle.family)
        unet = self._unet(start, index)
        condition = self.conditions[unet]
        model = self._model(unet)
        if self.networks.shape(model, self.networks.ports.latents)[0] == 1 and not is_guided:
            condition = {name: value[1:] for name, value in condition.items()}
        scaled = start.schedule.scaled(sample, index)
        timestep = float(start.schedule.timesteps[index])
        *without, noise = self._predicted(unet, start, scaled, timestep, condition).split(1)
        if is_guided:
            noise = without[0] + request.guidance * (noise - without[0])
        return noise

    def _unet(self, start: Start, index: int) -> str:
        """Returns the denoiser of a step: the refiner's, if the bundle has one, after a share of
        them."""
        host = HOSTS[self.request.host]
        if "refiner" not in self.conditions:
            return self.networks.base
        share = host.refiner_start if self.request.refiner is None else self.request.refiner
        is_base = index < int(len(start.schedule.timesteps) * share)
        return "unet" if is_base or share >= 1 else "refiner"

    def _predicted(
        self, unet: str, start: Start, sample: torch.Tensor, timestep: float, condition: Condition
    ) -> torch.Tensor:
        """Returns a denoiser's prediction for each prompt, in as many calls as its batch needs.

        Shapes:
            sample: (1, C, h, w); returns (N, C, h, w), N prompts.
        """
        model, ports = self._model(unet), self.networks.ports
        batch, channels = self.networks.shape(model, ports.latents)[:2]
        given = sample if start.mask is None else start.mask.joined(sample)
        given = given[:, :channels]  # a refiner takes no mask
        found = []
        for first in range(0, len(next(iter(condition.values()))), batch):
            inputs = {
                ports.latents: given.repeat(batch, 1, 1, 1).numpy(),
                "timestep": np.full((batch,), timestep, np.float32),
                **{name: value[first:first + batch] for name, value in condition.items()},
            }
            if model == CONTROLLED:
                inputs |= self._residuals(inputs)
            found.append(self.networks.output(
                model, inputs, ports.prediction, (batch, *sample.shape[1:])))
        return torch.from_numpy(np.concatenate(found).astype(np.float32))

    def _model(self, unet: str) -> str:
        """Returns the component that predicts as a denoiser."""
        return self.networks.denoiser(self.request) if unet == self.networks.base else unet

    def _residuals(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the sum of all ControlNets' residuals, by the names of the U-Net's inputs; zeros
        if there are none."""
        if not self.guides:
            shapes = self.networks.part(CONTROLLED).shapes
            return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()
                    if name not in inputs}
        total: dict[str, np.ndarray] = {}
        batch = len(inputs["sample"])
        for guide in self.guides:
            channels = self.networks.shape(guide.component, "sample")[1]
            found = self.networks.outputs(guide.component, {
                **inputs, "sample": inputs["sample"][:, :channels],  # a ControlNet takes no mask
                "controlnet_cond": guide.picture.repeat(batch, axis=0)})
            for name, value in found.items():
                scaled = value.astype(np.float32) * np.float32(guide.scale)
                total[name] = total[name] + scaled if name in total else scaled
        return total
