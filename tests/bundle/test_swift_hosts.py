"""The contract agrees with runs of Apple's Swift package over changed bundles."""

import json

import pytest

from sdbuild.bundle.contract import violations
from sdbuild.bundle.rules.rule import ERROR
from tests.bundle.probes import CHANGES, OF_THE_CALLER, UNSEEN, draw
from tests.bundle.small_bundles import DECLARED, FIXTURES, SmallBundle

PROBES = {probe["id"]: probe for probe in json.loads((FIXTURES / "probes.json").read_text())}

SCENARIOS = {each["id"]: each for each in json.loads((FIXTURES / "scenarios.json").read_text())}
DREW_SOMETHING_ELSE = {
    "sd3-guidance-0": "guidance: found 0", "xl-guidance-0": "guidance: found 0",
    "xl-guidance-half": "guidance: found 0.5",
    **{f"turbo-dpm-linspace-{steps}-g0": "guidance: found 0" for steps in (1, 2, 3, 4)},
    "xl-base-refiner-1-step": "at least 2 beside a refiner",
}
"""Pictures that are not what was asked for, by `facts.json` of the runs: that of the negative
prompt, or the refiner's alone."""
NOT_OF_BUNDLES = {"sd3-img2img": "a starting image", "turbo-flow---1-g1": "the scheduler of SD 3"}
"""Asked for by a caller; no bundle says it."""


def errors(folder):
    return [violation for violation in violations(folder) if violation.level == ERROR]


@pytest.mark.parametrize("scenario", DECLARED)
def test_a_bundle_that_drew_a_picture_has_no_error(scenario, tmp_path):
    assert errors(SmallBundle(scenario).write(tmp_path / "bundle")) == []


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_settings_that_a_picture_was_drawn_with_are_no_error_and_those_that_failed_are(
    scenario, tmp_path,
):
    ran = SCENARIOS[scenario]
    asked = {name: ran["settings"][name] for name in ("steps", "guidance", "scheduler", "count")
             if name in ran["settings"]}
    if ran["settings"].get("spacing") in ("karras", "linspace", "leading"):
        is_karras = ran["settings"]["spacing"] == "karras"
        asked |= {"karras": True} if is_karras else {"spacing": ran["settings"]["spacing"]}
    bundle = SmallBundle(ran["bundle"])
    draw(**asked)(bundle)

    found = "\n".join(map(str, errors(bundle.write(tmp_path / "bundle"))))

    if scenario in DREW_SOMETHING_ELSE:
        assert DREW_SOMETHING_ELSE[scenario] in found
    elif ran["finished"] or scenario in NOT_OF_BUNDLES:
        assert not found
    else:
        assert "draw.steps: found 1" in found


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
