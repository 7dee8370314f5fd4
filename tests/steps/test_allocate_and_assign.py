"""allocate and assign on a small package: the budget, the bit recipe, and the bytes."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from sdbuild.base.errors import StepError
from sdbuild.engine.stage import Job
from sdbuild.mil.files.package import read_package
from sdbuild.mil.ir.program import Blob
from sdbuild.mil.ir.traverse import walk
from sdbuild.quality.allocate import packed_bytes
from sdbuild.quality.calibration import Feedback, read_calibration, write_calibration
from sdbuild.quality.rated import write_ratings
from sdbuild.recipe.bits import read_bits
from sdbuild.safetensors.tensors import table
from sdbuild.steps import allocate, assign
from tests.mil.packages import IOS16, convolutions, weights

LAYERS, ELEMENTS = 4, 36 * 36 * 9
NAMES = [f"layer{number}.weight" for number in range(LAYERS)]


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """The inputs of both stages, by role: four layers, each of which matters ten times as much as
    the one before it."""
    folder = tmp_path_factory.mktemp("chain")
    inputs = {role: folder / role for role in ("package", "lowered", "ratings", "calibration")}
    for place in inputs.values():
        place.mkdir()
    source = convolutions(inputs["package"] / "Unet.mlpackage", IOS16, layers=LAYERS)
    places = [op.attributes["val"] for op in walk(read_package(source).program.main.block)
              if op.type == "const" and isinstance(op.attributes["val"].data, Blob)
              and op.attributes["val"].tensor.elements == ELEMENTS]
    (inputs["lowered"] / "bindings.json").write_text(json.dumps({
        "parameters": {f"net.{name}": [36, 36, 3, 3] for name in NAMES},
        "bindings": [{"dtype": "fp16", "shape": [36, 36, 3, 3], "offset": value.data.offset,
                      "parameter": f"net.{name}"}
                     for name, value in zip(NAMES, places, strict=True)]}))
    arrays = [a for a in weights(source).values() if a.size == ELEMENTS]
    save_file({f"net.{name}": array for name, array in zip(NAMES, arrays, strict=True)},
              folder / "weights.safetensors")
    rng = np.random.default_rng(0)
    order = np.stack([rng.permutation(324).astype(np.int32)])
    factors = np.triu(rng.normal(0, 0.05, (1, 324, 324)), 1).astype(np.float16)
    write_calibration(
        inputs["calibration"], 1e4,
        [(f"net.{name}", rng.random((36, 36, 3, 3), np.float32) * np.float32(10.0**number))
         for number, name in enumerate(NAMES)],
        [(f"net.{NAMES[0]}", Feedback(order=order, factors=factors,
                                         variances=np.ones(324, np.float32)))])
    write_ratings(inputs["ratings"], table([folder / "weights.safetensors"]),
                  read_calibration(inputs["calibration"]))
    return inputs


def run(stage, inputs, output, **params):
    output.mkdir()
    job = Job(params={"component": "unet", **params}, inputs=inputs, output=output,
              resources={"memory_bytes": 1 << 30})
    return stage.STAGE.run(job)


def test_weights_that_matter_more_get_more_bits_and_the_budget_holds(chain, tmp_path):
    facts = run(allocate, chain, tmp_path / "bits", budget={"average_bits": 4.0})

    bits = read_bits(tmp_path / "bits" / "bits.json")["unet"]
    assert list(bits) == NAMES
    assert list(bits.values()) == sorted(bits.values())
    assert len(set(bits.values())) > 1
    assert facts["bytes"] <= facts["budget_bytes"] == LAYERS * packed_bytes(ELEMENTS, 4)


@pytest.mark.parametrize("share", [0.3, 0.4])
def test_the_weight_file_is_no_larger_than_asked_for_and_nearly_as_large(chain, tmp_path, share):
    fp16 = next(chain["package"].rglob("weight.bin")).stat().st_size
    run(allocate, chain, tmp_path / "bits", budget={"size_bytes": int(fp16 * share)})

    run(assign, chain | {"bits": tmp_path / "bits" / "bits.json"}, tmp_path / "made")

    made = next((tmp_path / "made").rglob("weight.bin")).stat().st_size
    step = ELEMENTS // 4  # of the bytes of one weight: two bits more
    assert fp16 * share - step < made <= fp16 * share


def test_more_quality_takes_more_bytes_and_too_much_is_refused(chain, tmp_path):
    found = [run(allocate, chain, tmp_path / f"{db}", budget={"quality_db": db})
             for db in (5, 15, 25)]

    assert found[0]["bytes"] < found[1]["bytes"] < found[2]["bytes"]
    assert all(facts["expected_db"] >= db for facts, db in zip(found, (5, 15, 25), strict=True))
    with pytest.raises(StepError, match="no bits are within the budget"):
        run(allocate, chain, tmp_path / "more", budget={"quality_db": 120})


def test_the_packed_package_has_these_bits_and_is_the_same_bytes_each_time(chain, tmp_path):
    run(allocate, chain, tmp_path / "bits", budget={"average_bits": 4.0})
    inputs = chain | {"bits": tmp_path / "bits" / "bits.json"}

    facts = [run(assign, inputs, tmp_path / f"made{number}") for number in range(2)]

    bits = read_bits(inputs["bits"])["unet"]
    assert [tensor["bits"] for tensor in facts[0]["tensors"]] == list(bits.values())
    made = [next((tmp_path / f"made{number}").rglob("weight.bin")).read_bytes()
            for number in range(2)]
    assert made[0] == made[1]


def test_a_bit_recipe_needs_no_calibration_and_must_have_every_weight(chain, tmp_path):
    bits = dict.fromkeys(NAMES, 6)
    run(allocate, chain, tmp_path / "bits", budget={"bits": bits | {"another": 4}})
    assert read_bits(tmp_path / "bits" / "bits.json") == {"unet": bits}

    plain = {role: chain[role] for role in ("package", "lowered")}
    run(assign, plain | {"bits": tmp_path / "bits" / "bits.json"}, tmp_path / "made")
    assert next((tmp_path / "made").rglob("weight.bin")).is_file()

    del bits[NAMES[2]]
    with pytest.raises(StepError, match=r"lacks 1 of 4 weights, the first is layer2\.weight"):
        run(allocate, chain, tmp_path / "other", budget={"bits": bits})


def test_a_bit_recipe_may_leave_weights_as_they_are(chain, tmp_path):
    given = {NAMES[0]: 2, NAMES[1]: 16, "*": 8}
    run(allocate, chain, tmp_path / "bits", budget={"bits": given})

    facts = run(assign, chain | {"bits": tmp_path / "bits" / "bits.json"}, tmp_path / "made")

    assert [tensor["bits"] for tensor in facts["tensors"]] == [2, 8, 8]
    made = weights(next((tmp_path / "made").glob("*.mlpackage")))
    before = weights(next(chain["package"].glob("*.mlpackage")))
    kept = [name for name in made if name in before and made[name].size == ELEMENTS]
    assert len(kept) == 1
    assert (made[kept[0]] == before[kept[0]]).all()


def test_a_name_without_a_weight_is_refused_with_the_nearest(chain, tmp_path):
    with pytest.raises(StepError, match=r'layre2\.weight; did you mean "layer2\.weight"\?'):
        run(allocate, chain, tmp_path / "bits", budget={"bits": {"layre2.weight": 4, "*": 16}})


def test_a_constant_that_is_no_parameter_is_left_as_it_is(chain, tmp_path):
    (tmp_path / "lowered").mkdir()
    listed = json.loads((chain["lowered"] / "bindings.json").read_text("utf-8"))
    del listed["bindings"][1]["parameter"]
    listed["bindings"][1]["constant"] = 0
    (tmp_path / "lowered" / "bindings.json").write_text(json.dumps(listed), "utf-8")
    inputs = chain | {"lowered": tmp_path / "lowered", "bits": tmp_path / "bits" / "bits.json"}

    run(allocate, inputs, tmp_path / "bits", budget={"average_bits": 4.0})
    facts = run(assign, inputs, tmp_path / "made")

    assert list(read_bits(inputs["bits"])["unet"]) == [NAMES[0], *NAMES[2:]]
    assert len(facts["tensors"]) == LAYERS - 1
