"""A U-Net that is published alone takes what it lacks from the checkpoint beside it."""

import json
import shutil
from pathlib import Path

import pytest

from sdbuild.base.digest import digest_file
from sdbuild.checkpoints import open_checkpoint
from tests.steps.test_download import CHECKPOINT, UNET, download


@pytest.fixture
def checkpoint(tmp_path):
    return Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))


def predicts(checkpoint, kind):
    path = checkpoint / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": kind}))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_unet_alone_predicts_what_the_checkpoint_says_that_it_is_used_with(
    checkpoint, tmp_path, kind,
):
    predicts(checkpoint, kind)
    alone = Path(shutil.move(checkpoint / "unet", tmp_path / "lightning"))

    found, _ = download(alone, tmp_path, sidecars=["scheduler"], beside=[checkpoint])

    shutil.copytree(alone, checkpoint / "unet")
    wanted, _ = download(checkpoint, tmp_path, name="whole", sidecars=["scheduler"])
    assert found == wanted
    assert ("prediction" in json.loads(found["architecture.json"])) == (kind == "v_prediction")


def test_a_unet_from_a_whole_pipeline_predicts_what_its_own_scheduler_says(checkpoint, tmp_path):
    other = Path(shutil.copytree(checkpoint, tmp_path / "other"))
    predicts(checkpoint, "v_prediction")

    found, _ = download(checkpoint, tmp_path, sidecars=["scheduler"], beside=[other])

    assert json.loads(found["architecture.json"])["prediction"]["type"] == "v_prediction"


def test_what_a_unet_alone_is_made_of_is_its_files_and_the_checkpoints_scheduler(
    checkpoint, tmp_path,
):
    alone = Path(shutil.copytree(checkpoint / "unet", tmp_path / "lightning"))
    opened = open_checkpoint([str(alone)], {}, beside=[str(checkpoint)])

    found = {**opened.identity("unet", digest_file), **opened.identity("scheduler", digest_file)}

    assert found == {
        "config.json": digest_file(alone / "config.json"),
        f"{UNET}.safetensors": digest_file(alone / f"{UNET}.safetensors"),
        "beside/scheduler/scheduler_config.json": digest_file(
            checkpoint / "scheduler" / "scheduler_config.json"),
    }
