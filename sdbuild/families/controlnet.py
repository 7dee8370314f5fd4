"""ControlNets of Stable Diffusion 1.x, 2.x and XL, and the U-Net that takes what they give.

Hosts run those of 1.x and 2.x alone.
"""

from dataclasses import replace

from sdbuild.families.nouns import Component, Port


def controlled(unet: Component) -> Component:
    """Returns the U-Net with something added to each of its residuals. Its weights are the same, so
    a bundle that holds both has them once."""
    return replace(
        unet, name="controlled_unet", bundle_name="ControlledUnet",
        network=f"controlled_{unet.network}", comes_with="controlnet",
        inputs=(
            *unet.inputs,
            Port(name="additional_residual", shape=(), dtype="fp16", is_numbered=True,
                 meaning="Added to a residual of the U-Net: the sum of what ControlNets give."),
        ),
    )


def controlnet(unet: Component) -> Component:
    """Returns a network that sees what the U-Net sees, and a picture to guide by."""
    return replace(
        unet, name="controlnet", bundle_name="ControlNet",
        network=unet.network.replace("unet", "controlnet"), source="source", folder="controlnet",
        sidecars=(), settings=frozenset({"attention"}), is_palettized=False,
        comes_with="controlnet",
        inputs=(
            *unet.inputs,
            Port(name="controlnet_cond", shape=("B", 3, "H", "W"), dtype="fp16",
                 meaning="The picture to guide by, from 0 to 1."),
        ),
        outputs=(
            # Hosts sum those of several ControlNets as fp32.
            Port(name="additional_residual", shape=(), dtype="fp32", is_numbered=True,
                 meaning="What is added to a residual of the U-Net."),
        ),
    )
