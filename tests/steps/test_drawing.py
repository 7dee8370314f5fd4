"""Drawing for a check: one network at a time, and a scheduler of anybody's."""

import json
import weakref

import pytest

from sdbuild.base.errors import SourceError
from sdbuild.engine.stage import Job
from sdbuild.recipe.recipe import load
from sdbuild.runtime.drawing import OneAtATime
from sdbuild.steps.originals import STAGE


class Network:
    pass


def test_a_network_is_gone_before_the_next_one_is_loaded():
    loaded, alive = [], []

    def load_part(name):
        alive.append([old() is not None for old in loaded])
        network = Network()
        loaded.append(weakref.ref(network))
        return network

    parts = OneAtATime(load_part)
    for name in ("text_encoder", "text_encoder", "unet", "unet", "vae_decoder"):
        parts(name)

    assert alive == [[], [False], [False, False]]


@pytest.mark.parametrize("config, message", [
    ('{"num_train_timesteps": 1e10}', "num_train_timesteps is 10000000000.0"),
    ('{"beta_start": "0.1"}', "beta_start is '0.1'"),
    ('{"prediction_type": 1}', "prediction_type is 1"),
    ("[" * 9000, "nested"), ("[1]", "expected a JSON object"),
])
def test_a_scheduler_that_cannot_be_one_is_refused_before_anything_is_loaded(
    tmp_path, config, message,
):
    (tmp_path / "scheduler_config.json").write_text(config)
    (tmp_path / "latents.json").write_text(json.dumps({"scaling_factor": 0.18215}))
    job = Job(params=STAGE.params(load({})), output=tmp_path,
              inputs={"resources": tmp_path, "latents": tmp_path / "latents.json"})

    with pytest.raises(SourceError, match=message):
        STAGE.run(job)
