"""The pytest plugin: chooses coremltools' tests, and keeps what came of each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

from sdbuild.base.errors import UnsupportedOp
from tests.conformance.outcomes import Outcome, operation_of, sampled
from tests.conformance.seam import NotApplicable, Proxy

NAMES = frozenset(SSAOpRegistry.core_ops)
"""The operations that coremltools knows."""

_OURS = str(Path(__file__).parents[2] / "sdbuild")


class Collector:
    """Takes the tests of some operations, or a sample of them; `outcomes` is what came of them."""

    def __init__(self, operations: Sequence[str] | None, sample: int | None) -> None:
        self.outcomes: list[Outcome] = []
        self._operations = operations
        self._sample = sample

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leaves out what was not asked for."""
        if self._operations is not None:
            items[:] = [item for item in items if _operation(item) in self._operations]
        if self._sample is not None:
            items[:] = [items[i] for i in sampled([_operation(i) for i in items], self._sample)]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module that cannot be imported is a failure, not an empty list."""
        if report.failed:
            self.outcomes.append(Outcome(test=report.nodeid, family=_family(report.nodeid),
                                         operation=_family(report.nodeid), status="failed",
                                         reason=str(report.longrepr).strip().splitlines()[-1]))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo
    ) -> Iterator[None]:
        """Keeps the outcome of the test itself, or of what stopped it before."""
        if call.when == "setup":
            np.random.seed(0)  # the tests draw numbers without a seed
            Proxy.predictions = 0
        report = yield
        if call.when == "call" or (call.when == "setup" and not report.passed):
            status, reason = _judged(report, call)
            self.outcomes.append(Outcome(
                test=item.nodeid, family=_family(item.nodeid), operation=_operation(item),
                status=status, reason=reason,
            ))
        return report


def _operation(item: Any) -> str:
    """The operation that a test is of."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    class_name = item.cls.__name__ if item.cls else _family(item.nodeid)
    return operation_of(class_name, parameters, NAMES)


def _family(test: str) -> str:
    """The family of a test: its file, as in MIL's own tree."""
    return Path(test.split("::")[0]).stem.removeprefix("test_")


def _judged(report: pytest.TestReport, call: pytest.CallInfo) -> tuple[str, str]:
    """The status of a test and its reason."""
    if report.skipped:
        return "not applicable", f"skipped: {_skip_reason(report)}"
    if report.passed:
        if Proxy.predictions:
            return "passed", ""
        return "not applicable", "tests the converter: predicts nothing"
    error = call.excinfo.value
    if isinstance(error, NotApplicable):
        return "not applicable", str(error)
    reason = _reason(error)
    is_ours = any(_OURS in str(entry.path) for entry in call.excinfo.traceback)
    if not Proxy.predictions and not is_ours:
        return "not applicable", f"fails in coremltools, before any prediction: {reason}"
    return "failed", reason


def _skip_reason(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):
        return report.wasxfail.removeprefix("reason: ").strip() or "expected to fail"
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


def _reason(error: BaseException) -> str:
    """The kind of an error and the first line of its message, without the numbers of the run."""
    if isinstance(error, UnsupportedOp):
        return f"the executor lacks {', '.join(sorted(error.facts['counts']))}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = re.sub(r"\d+\.\d+(e[-+]?\d+)?", "…", lines[0]) if lines else ""
    return f"{type(error).__name__}: {first}"
