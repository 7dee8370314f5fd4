"""Notes on a bundle without a manifest say where each thing is known from."""

import pytest

from sdbuild.bundle.inferred import infer
from tests.bundle.small_bundles import SmallBundle, ruined

FROM_UNET = "pixels and {} are inferred from the U-Net"
FROM_NAME = "pixels are inferred from the U-Net, {} from the folder's name"


@pytest.mark.parametrize(("folder", "has_einsum", "attention", "said"), [
    ("original", False, "original", FROM_UNET), ("models", True, "split_einsum", FROM_UNET),
    ("split_einsum", True, "split_einsum", FROM_UNET),
    ("split_einsum_v2", True, "split_einsum_v2", FROM_NAME),
    ("split_einsum", False, "original", FROM_UNET), ("original", True, "split_einsum", FROM_UNET),
])
def test_the_folder_names_only_which_split_layout_a_unet_has(
    folder, has_einsum, attention, said, tmp_path,
):
    made = SmallBundle("sd-guidance-7.5")
    if has_einsum:
        ruined("Unet", "model.mil", old=b" fill(", new=b" einsum(")(made)
    (tmp_path / folder).mkdir()

    bundle, notes = infer(made.write(tmp_path / folder / "compiled"))

    assert bundle.attention == attention
    assert said.format(attention) in notes[0]
