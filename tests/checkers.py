"""Small random safety checkers, as diffusers makes and saves them."""

import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

VISION = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2,
          "num_hidden_layers": 2, "image_size": 224, "patch_size": 32}
NEVER = 2.0
"""A threshold above every cosine."""


def small_checker(**vision):
    """A checker with random weights that flags nothing."""
    torch.manual_seed(8128)
    config = CLIPConfig(vision_config=VISION | vision, projection_dim=128)
    checker = StableDiffusionSafetyChecker(config).eval()
    with torch.no_grad():
        for name, parameter in checker.named_parameters():
            if name.endswith("embeds_weights"):
                parameter.fill_(NEVER)
            elif parameter.dim() > 1:
                parameter.normal_().div_(parameter[0].numel() ** 0.5)
    return checker


def published(checker):
    """Its tensors by the names that published files have."""
    return {name.replace("vision_model.", "vision_model.vision_model."): tensor
            for name, tensor in checker.state_dict().items()}


def seen(pictures):
    """Pictures as transformers' own processor gives them.

    Shapes:
        returns (pictures, 3, 224, 224).
    """
    return CLIPImageProcessorPil()(pictures, return_tensors="pt").pixel_values


def embeddings(checker, pictures):
    """The checker's embeddings of pictures, normalized.

    Shapes:
        returns (pictures, 128).
    """
    with torch.no_grad():
        found = checker.visual_projection(checker.vision_model(seen(pictures)).pooler_output)
    return torch.nn.functional.normalize(found)


def verdicts(checker, pictures):
    """Returns the verdicts of diffusers' own forward on each picture."""
    images = torch.zeros(len(pictures), 8, 8, 3)
    return checker(clip_input=seen(pictures), images=images)[1]
