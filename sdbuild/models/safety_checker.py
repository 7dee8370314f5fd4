"""The safety checker of Stable Diffusion 1.x: CLIP's view of a picture against concepts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from torch import nn
from transformers import CLIPConfig

from sdbuild.base.errors import SourceError
from sdbuild.families import CHECKED_PX, Component, Dims
from sdbuild.models.network import Architecture, expect_class, unwrapped

_LEAST_SCORE = 0.0005
"""diffusers rounds scores to three decimals before it asks whether they are above zero."""

_CARE = 0.01
"""The adjustment of every score of a picture that matches a special-care concept, as in
diffusers."""

_ADJUSTMENTS = (0.0, 3.0, -3.0)
"""As in use, and far beyond any score: every concept is found, then none."""


class SafetyChecker(nn.Module):
    """diffusers' safety checker as one graph: no loops over pictures, no branches.

    A score is the cosine between the picture's embedding and a concept's, less that concept's
    threshold. The verdict is that of `StableDiffusionSafetyChecker.forward` in diffusers 0.42,
    and at an adjustment of 0 for every picture.
    """

    def __init__(self, net: StableDiffusionSafetyChecker) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, clip_input: torch.Tensor, images: torch.Tensor, adjustment: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns the pictures, black if a concept was found; 1 if so, else 0; and the scores.

        Shapes:
            clip_input: (1, 3, 224, 224); images: (1, 512, 512, 3); adjustment: (1,);
            returns (1, 512, 512, 3), (1, 1, 1, 1) and (1, concepts).
        """
        embedding = self.net.visual_projection(self.net.vision_model(clip_input).pooler_output)
        concepts, special = self._cosines(embedding)
        special = special - self.net.special_care_embeds_weights + adjustment
        needs_care = (special.amax(1, keepdim=True) > _LEAST_SCORE).float()  # -> (1, 1)
        scores = concepts - self.net.concept_embeds_weights + adjustment + _CARE * needs_care
        is_found = (scores.amax(1) > _LEAST_SCORE).float()[:, None, None, None]
        return images * (1 - is_found), is_found, scores

    def _cosines(self, embedding: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the cosines with the concepts, and with those that need special care.

        All embeddings are normalized together: what is computed from weights alone would be
        folded into a constant, and a checkpoint's tensor would have no place in the program.

        Shapes:
            embedding: (1, D); returns (1, concepts) and (1, special concepts).
        """
        known = len(self.net.concept_embeds)
        rows = torch.cat([embedding, self.net.concept_embeds, self.net.special_care_embeds])
        rows = nn.functional.normalize(rows)
        cosines = rows[:1] @ rows[1:].T
        return cosines[:, :known], cosines[:, known:]


class _AllPositions(nn.Embedding):
    """An embedding that gives all its rows in order; its network's list of them is a buffer,
    which has no numbers on the meta device."""

    def forward(self, positions: None) -> torch.Tensor:
        return self.weight[None]


def build(component: Component, architecture: Architecture) -> nn.Module:
    """Returns the network on the current default device."""
    expect_class(architecture, "StableDiffusionSafetyChecker")
    net = StableDiffusionSafetyChecker(CLIPConfig(**architecture.config))
    net.vision_model = unwrapped(net.vision_model, "vision_model")
    embeddings = net.vision_model.embeddings
    if embeddings.image_size != CHECKED_PX:
        raise SourceError(
            f"{component.name}: its network sees {embeddings.image_size} pixels a side, "
            f"expected {CHECKED_PX}"
        )
    embeddings.position_ids = None
    embeddings.position_embedding = _AllPositions(
        embeddings.num_positions, embeddings.embed_dim
    )
    return SafetyChecker(net)


def dims(component: Component, config: Mapping[str, Any]) -> Dims:
    """Returns the numbers of its port shapes: none depends on the checkpoint, or on the picture."""
    return {}


def samples(
    component: Component, config: Mapping[str, Any], dims: Dims, rng: torch.Generator
) -> Iterator[tuple]:
    """Smooth pictures with a little noise, as CLIP sees them; found clean, and not.

    Shapes:
        each: clip_input (1, 3, 224, 224), images (1, 512, 512, 3), adjustment (1,).
    """
    seen, images = (port.sized(dims) for port in component.inputs[:2])
    for adjustment in _ADJUSTMENTS:
        coarse = torch.randn(1, 3, 7, 7, generator=rng)
        picture = nn.functional.interpolate(coarse, seen[2:], mode="bicubic")
        noise = torch.randn(seen, generator=rng) / 20
        yield picture + noise, torch.rand(images, generator=rng), torch.tensor([adjustment])
