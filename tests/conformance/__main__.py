"""Runs coremltools' operation tests on the portable executor.

    python -m tests.conformance [--ops conv,…] [--sample N] [--json] [--write FILE]

Prints passed, failed and not applicable for each operation, with reasons. `--sample N` takes N
tests of each operation, evenly spread; `--write` puts the table into the document. The exit code
is 1 if a test failed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.conformance.outcomes import Outcome, table

_START, _END = "<!-- measured -->", "<!-- end of measured -->"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs, prints, and says by the exit code whether all is well."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance")
    parser.add_argument("--ops", help="names of operations, with commas between them")
    parser.add_argument("--sample", type=int, help="tests of each operation")
    parser.add_argument("--json", action="store_true", help="outcomes for machines")
    parser.add_argument("--write", type=Path, help="a document to put the table into")
    given = parser.parse_args(arguments)
    outcomes = run(given.ops.split(",") if given.ops else None, given.sample)
    if given.write:
        write(given.write, table(outcomes))
    print(json.dumps([asdict(o) for o in outcomes]) if given.json else table(outcomes))
    return int(any(outcome.status == "failed" for outcome in outcomes))


def run(operations: Sequence[str] | None, sample: int | None) -> list[Outcome]:
    """The outcomes of the tests of some operations, or of all."""
    os.environ["PYMIL_TEST_TARGETS"] = "mlprogram"  # read when coremltools' tests are imported
    from tests.conformance.collector import Collector
    from tests.conformance.seam import executor_as_core_ml

    collector = Collector(operations, sample)
    with warnings.catch_warnings(), executor_as_core_ml(), tempfile.TemporaryDirectory() as empty:
        warnings.simplefilter("ignore")
        config = Path(empty) / "pytest.ini"
        config.write_text("[pytest]\n", "ascii")
        options = ["-q", "-p", "no:cacheprovider", "-W", "ignore", "-c", str(config),
                   "--tb=short", str(_tests())]
        with redirect_stdout(io.StringIO()):
            pytest.main(options, plugins=[collector])
    return collector.outcomes


def write(document: Path, measured: str) -> None:
    """Puts the table between its marks in a document."""
    text = document.read_text("utf-8")
    before, after = text.split(_START)[0], text.split(_END)[1]
    document.write_text(f"{before}{_START}\n{measured}\n{_END}{after}", "utf-8")


def _tests() -> Path:
    """The folder of coremltools' operation tests, in its wheel."""
    import coremltools

    return Path(coremltools.__file__).parent / "converters" / "mil" / "mil" / "ops" / "tests"


if __name__ == "__main__":
    sys.exit(main())
