"""Checkpoints that coremltools palettized while they were trained keep their tables."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from coremltools.models.utils import load_spec
from safetensors.torch import save_file
from transformers import CLIPTextModel

from sdbuild.engine.build import Builder
from sdbuild.engine.plan import plan
from sdbuild.mil.files.blob import BlobReader
from sdbuild.mil.files.suffixes import WEIGHTS_IN_PACKAGE
from sdbuild.recipe.recipe import load
from sdbuild.store import Store

CHECKPOINT = Path(__file__).parents[2] / "recipes" / "tiny-emoji"
PALETTIZED = "palettize:text_encoder"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The built-in checkpoint with a text encoder of 4 bits, some layers of which have 2: its
    folder, and the tables."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from coremltools.optimize.torch import palettization
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path_factory.mktemp("trained") / "checkpoint"))
    place = folder / "text_encoder"
    config = palettization.PostTrainingPalettizerConfig.from_dict({
        "global_config": {"n_bits": 4, "granularity": "per_tensor"},
        "module_name_configs": {".*fc1": {"n_bits": 2, "granularity": "per_tensor"}},
    })
    model = CLIPTextModel.from_pretrained(place).float()
    state = palettization.PostTrainingPalettizer(model, config).compress().state_dict()
    for file in place.glob("*.safetensors"):
        file.unlink()
    save_file({n: t.contiguous() for n, t in state.items()}, place / "model.safetensors")
    return folder, [table.flatten() for name, table in state.items() if name.endswith("/lut")]


@pytest.fixture(scope="module")
def built(trained, tmp_path_factory):
    recipe = load({"model": "tiny-emoji", "source": str(trained[0]), "quant": "8"})
    made = Builder(plan(recipe), Store(tmp_path_factory.mktemp("cache")))
    made.make_all(PALETTIZED)
    return made


def tables_of(made):
    """The tables of the package, as coremltools reads its program."""
    package = made.store.checkout(made.state(PALETTIZED).record, made.store.root / "package")
    (package,) = package.iterdir()
    program = load_spec(str(package)).mlProgram
    (block,) = program.functions["main"].block_specializations.values()
    for operation in block.operations:
        if operation.type == "constexpr_lut_to_dense":
            found = operation.attributes["lut"]
            if found.HasField("immediateValue"):
                yield np.frombuffer(found.immediateValue.tensor.bytes.values, np.float16)
            else:
                weights = BlobReader(package / WEIGHTS_IN_PACKAGE)
                yield np.frombuffer(weights.data(found.blobFileValue.offset), np.float16)


def test_each_weight_keeps_the_table_that_it_was_trained_with(trained, built):
    learned = [sorted(table.half().tolist()) for table in trained[1]]

    found = [table.astype(float).tolist() for table in tables_of(built)]

    assert {len(table) for table in learned} == {4, 16}
    assert sorted(table for table in found if len(table) < 256) == sorted(learned)


def test_nothing_is_lost_of_them(trained, built):
    found = built.state(PALETTIZED).record.facts["tensors"]

    lost = [report["rms_error"] for report in found if report["bits"] < 8]
    assert lost == [0] * len(trained[1])


def test_the_tables_beside_the_weights_are_no_part_of_the_network(built):
    digests = built.state("download:text_encoder").record.facts["tensors"]

    assert not [name for name in digests if "COREML" in name]
