"""The contract agrees with runs of Apple's Swift package over changed bundles."""

import json

import pytest

from sdbuild.bundle.contract import violations
from sdbuild.bundle.rules.rule import ERROR
from tests.bundle.probes import CHANGES, OF_THE_CALLER, UNSEEN
from tests.bundle.small_bundles import DECLARED, FIXTURES, SmallBundle

PROBES = {probe["id"]: probe for probe in json.loads((FIXTURES / "probes.json").read_text())}


def errors(folder):
    return [violation for violation in violations(folder) if violation.level == ERROR]


@pytest.mark.parametrize("scenario", DECLARED)
def test_a_bundle_that_drew_a_picture_has_no_error(scenario, tmp_path):
    assert errors(SmallBundle(scenario).write(tmp_path / "bundle")) == []


@pytest.mark.parametrize("probe", CHANGES)
def test_what_failed_or_drew_wrongly_is_an_error_with_its_cause_and_what_worked_is_none(
    probe, tmp_path,
):
    scenario, change, cause = CHANGES[probe]
    bundle = SmallBundle(scenario)
    change(bundle)
    found = errors(bundle.write(tmp_path / "bundle"))

    said = "\n".join(map(str, found))
    if PROBES[probe]["judgement"] == "works":
        assert not found, said
    else:
        assert cause and cause in said, said


def test_every_probe_is_of_a_bundle_of_a_caller_or_of_what_a_model_computes():
    known = [*CHANGES, *OF_THE_CALLER, *UNSEEN]

    assert sorted(known) == sorted(PROBES)
