"""Failures of Core ML name the component and say what helps."""

import pytest

from sdbuild.base.errors import BundleError


def test_a_failure_of_the_neural_engine_names_the_component_and_offers_the_portable_executor():
    """The text is of apple/ml-stable-diffusion, issue 255."""
    from sdbuild.runtime.coreml import translated

    said = "MILCompilerForANE error: failed to compile ANE model using ANEF"

    with pytest.raises(BundleError, match=r"^Unet: Core ML cannot run it: MILCompiler") as raised, \
            translated("Unet: Core ML cannot run it"):
        raise RuntimeError(said)

    assert said in str(raised.value)
    assert "predictor=portable" in raised.value.hint
