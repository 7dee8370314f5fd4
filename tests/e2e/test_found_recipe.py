"""A checkpoint without a model, from the command line: what is said, asked and remembered."""


import pytest

from sdbuild.recipe.project import BUILT_IN
from tests.single_files import folder_of

V2 = "stable-diffusion-2-1"
REPOSITORY = "hub:owner/dreamy"


def repository(folder):
    """A repository with configs of Stable Diffusion 2.1 and weights that nobody reads."""
    made = folder_of(folder, V2, {"prediction_type": "v_prediction"})
    files = {path.relative_to(made).as_posix(): path.read_bytes()
             for path in made.rglob("*") if path.is_file()}
    return files | {f"{part}/{name}.safetensors": b"" for part, name in (
        ("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"))}


def test_a_repository_gets_the_recipe_of_its_configs_and_its_own_name(
    new_project, hub, tmp_path,
):
    hub.add("owner/dreamy", repository(tmp_path / "made"))
    places = {"source": REPOSITORY, "model": None}

    found = new_project.why("build", **places)["recipe"]
    asked = len(hub.requests)
    again = new_project.why("build", **places)["recipe"]

    assert found.startswith("sd-2-1, the published model of this architecture: prompts 1024 wide")
    assert again == found
    # What a commit holds is remembered. Where a branch is stands in a store, and there is none.
    assert hub.requests[asked:] == [("GET", "/api/models/owner/dreamy", False)]
    fetched = {path.partition("/resolve/")[2].partition("/")[2] for path in hub.paths("GET")}
    assert not any(name.endswith(".safetensors") for name in fetched)


def test_the_recipe_that_was_found_is_reported_before_work_starts(new_project):
    words = {"source": BUILT_IN / "tiny-emoji", "model": None}

    printed = new_project.doit("download:vae_encoder", **words)

    assert printed.startswith("   recipe: defaults at 128x128, the sample_size of its config")
    assert "recipe:" not in new_project.doit("download:vae_encoder", **words)


def test_what_a_file_does_not_say_is_asked_before_any_work(new_project, tmp_path):
    folder = folder_of(tmp_path / "mine", V2, {"prediction_type": None})

    printed = new_project.doit("build", status=2, source=folder, model=None)

    assert "does not say what its U-Net predicts" in printed
    assert "hint: prediction_type=epsilon size=512 if it was made from sd-2-1-base" in printed
    assert not new_project.cache.exists()


@pytest.mark.parametrize(("source", "message"), [
    ("none.safetensors", "none.safetensors: there is no such file"),
    ("/none", "there is no such folder"), ("README.md", "expected a folder or a .safetensors"),
    (BUILT_IN / "tiny-emoji" / "vae", "if that is an autoencoder: vae=FOLDER"),
])
def test_a_checkpoint_that_cannot_be_read_ends_with_its_error(new_project, source, message):
    assert message in new_project.doit("build", status=1, source=source, model=None)
    assert message in new_project.sdbuild("why", "build", status=1, source=source, model=None)
