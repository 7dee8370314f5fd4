"""The one seam: coremltools' proxy of Core ML is replaced by our executor.

`coremltools.models.model._MLModelProxy` is the native class that loads a compiled model and
predicts; it is None where there is no Core ML. With ours in its place, and with code that
asks for macOS seeing one, coremltools' tests predict here as they do on a Mac.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import coremltools
import numpy as np

from sdbuild.mil.execute.execute import Executor
from sdbuild.mil.files.package import read_package

VERSION = "9.0"
"""The coremltools that the names below were read in."""

MACOS = (15, 5)
"""The version of macOS that tests see: the first with all of iOS 18."""

_SPECIFICATION_VERSION = 9  # iOS 18


class NotApplicable(Exception):
    """The test needs what the executor is not meant to have."""


class Proxy:
    """A stand-in for Core ML's proxy in coremltools: it reads the model at the first prediction."""

    predictions = 0

    def __init__(self, filename: str, units: str, function: str, hints: dict, asset: None) -> None:
        self._path = Path(filename)
        self._function = function or None
        self._executor: Executor | None = None

    @staticmethod
    def maximum_supported_specification_version() -> int:
        """Of the newest models that this "system" loads."""
        return _SPECIFICATION_VERSION

    def newState(self) -> State:
        """States, all zeros; named as in the native class."""
        return State(self._load())

    def predict(
        self, inputs: Mapping[str, object], state: State | None = None
    ) -> dict[str, np.ndarray]:
        """The outputs; Core ML has no scalars, and gives them as one element."""
        Proxy.predictions += 1
        if any(not isinstance(value, np.ndarray) for value in inputs.values()):
            raise NotApplicable("images as inputs")
        if self._executor is None:
            self._executor = self._load()
        found = (state.executor if state else self._executor).predict(inputs)
        return {name: np.atleast_1d(array) for name, array in found.items()}

    def _load(self) -> Executor:
        if self._path.suffix != ".mlpackage":
            raise NotApplicable("a neural network, not an ML Program")
        return Executor(read_package(self._path), function=self._function)


class State:
    """The states of a model: an executor of its own, as it keeps them."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor


@contextmanager
def executor_as_core_ml() -> Iterator[None]:
    """Within it, coremltools predicts with the portable executor.

    To be entered before coremltools' tests are imported: some take the functions by name.

    Raises:
        RuntimeError: another version of coremltools than the one this was written for.
    """
    if coremltools.__version__ != VERSION:
        raise RuntimeError(
            f"coremltools {coremltools.__version__}: the conformance harness replaces parts of "
            f"{VERSION}; see if they are still there, then raise VERSION in {Path(__file__).name}"
        )
    changes = {
        "coremltools.models.model._MLModelProxy": Proxy,
        "coremltools.models.model._is_macos": lambda: True,
        "coremltools.models.model._macos_version": lambda: MACOS,
        "coremltools.models.utils._is_macos": lambda: True,
        "coremltools.models.utils._macos_version": lambda: MACOS,
        "coremltools.converters.mil.testing_utils._IS_MACOS": True,
    }
    with ExitStack() as stack:
        for target, value in changes.items():
            stack.enter_context(patch(target, value))
        yield
