"""Values of the command line that are more than a word or a number."""

from pathlib import Path

import pytest

from sdbuild.bundle.request import Request
from sdbuild.recipe import values


@pytest.mark.parametrize("text, expected", [
    ("Canny:a.png", [("Canny", "a.png", 1.0)]),
    ("Canny:a.png:0.5,Depth:b c.png", [("Canny", "a.png", 0.5), ("Depth", "b c.png", 1.0)]),
    ("Canny:C:folder/a.png", [("Canny", "C:folder/a.png", 1.0)]),
    ("Canny:a:1.png", [("Canny", "a:1.png", 1.0)]),
])
def test_control_nets_have_a_name_an_image_and_a_scale(text, expected):
    found = values.controls(text)

    assert found == tuple((n, str(Path(p).absolute()), s) for n, p, s in expected)


@pytest.mark.parametrize("text", ["", "Canny", ":a.png", "Canny:", "Canny:a.png,"])
def test_what_is_no_control_net_is_refused(text):
    with pytest.raises(ValueError):
        values.controls(text)


@pytest.mark.parametrize("scale", ["nan", "-1", "11", "strong", "0.5x", ""])
def test_a_scale_that_is_none_is_not_taken_for_a_part_of_the_files_name(scale):
    with pytest.raises(ValueError, match="a scale from 0 to 10"):
        values.controls(f"Canny:a.png:{scale}")


def test_settings_of_a_request_are_parsed_to_the_same_request():
    """As `doit generate` hands them to the command."""
    controls = values.controls("Canny:a.png:0.5,Depth:b.png")
    request = Request(prompt="", negative="", seed=1, steps=1, guidance=1, scheduler="dpm",
                      count=1, control=controls, karras=True)

    settings = {name: str(value) for name, value in request.settings().items()}

    assert values.controls(settings["control"]) == controls
    assert values.yes(settings["karras"]) is True


@pytest.mark.parametrize("name, expected", [
    ("DPM++ 2M Karras", "dpm_karras"), ("dpmpp_2m", "dpm"), ("Euler a", "euler_a"),
    ("k_euler_ancestral", None), ("PLMS", "pndm"), ("DPM++ 2M SDE Karras", "dpm_sde_karras"),
    ("DPM++ SDE", "dpm_single_sde"), ("UniPC", "unipc"), ("LMS Karras", "lms_karras"),
    ("DPM2 a", "dpm2_a"), ("Euler Karras", "euler_karras"), ("Euler a Karras", None),
])
def test_schedulers_have_their_usual_names(name, expected):
    if expected is None:
        with pytest.raises(ValueError, match="one of"):
            values.scheduler(name)
    else:
        assert values.scheduler(name) == expected
