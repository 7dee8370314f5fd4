import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conformance.outcomes import Outcome, operation_of, sampled, table

ROOT = Path(__file__).parents[2]
OPERATIONS = ("conv,matmul,softmax,layer_norm,reduce_sum,gather,resize_nearest_neighbor,"
              "scaled_dot_product_attention,constexpr_lut_to_dense,slice_update,gelu,pad")


@pytest.mark.slow
def test_a_sample_of_the_tests_of_coremltools_passes_on_the_executor():
    done = subprocess.run(
        [sys.executable, "-m", "tests.conformance", "--json", "--sample", "2", "--ops", OPERATIONS],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )

    outcomes = json.loads(done.stdout.splitlines()[-1])
    assert [o for o in outcomes if o["status"] == "failed"] == []
    assert Counter(o["status"] for o in outcomes)["passed"] >= 12
    assert done.returncode == 0


@pytest.mark.parametrize(("class_name", "parameters", "expected"), [
    ("TestConv", {"mode": "sub"}, "conv"),
    ("TestClampedReLU", {}, "clamped_relu"),
    ("TestReduction", {"mode": "argmax"}, "reduce_argmax"),
    ("TestElementwiseBinary", {"axis": 1, "mode": "sub"}, "sub"),
    ("TestDilation", {}, "Dilation"),
])
def test_a_test_is_of_the_operation_that_its_class_or_a_parameter_names(
    class_name, parameters, expected
):
    names = ["conv", "clamped_relu", "reduce_argmax", "sub"]

    assert expected == operation_of(class_name, parameters, names)


def test_a_sample_takes_evenly_from_each_operation():
    operations = ["a"] * 10 + ["b"] * 2

    assert [0, 3, 6, 10, 11] == sampled(operations, 3)


def test_the_table_counts_and_gives_reasons():
    outcomes = [
        Outcome(test="1", family="conv", operation="conv", status="passed"),
        Outcome(test="2", family="conv", operation="conv", status="failed", reason="no"),
    ]

    assert table(outcomes).splitlines() == [
        "| family | operation | passed | failed | not applicable |",
        "| --- | --- | ---: | ---: | ---: |",
        "| conv | conv | 1 | 1 | 0 |",
        "| **all** |  | 1 | 1 | 0 |",
        "", "**Failed**", "", "- 1 × no (conv)",
    ]
