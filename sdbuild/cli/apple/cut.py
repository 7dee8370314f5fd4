"""`sdbuild chunk`: a package of any name, cut in two."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdbuild.base.errors import MILError
from sdbuild.base.paths import outside_path
from sdbuild.base.units import size
from sdbuild.cli.apple.flags import Given
from sdbuild.cli.apple.layout import OURS, Output, tree_digest
from sdbuild.cli.apple.packages import cut as cut_in_two
from sdbuild.mil.files.suffixes import PACKAGE
from sdbuild.store.scan import files

if TYPE_CHECKING:
    import numpy as np

_LEAST_PSNR_DB = 55.0
"""Chunks compute the same in fp32, with a value recast where they are cut."""


def cut(flags: Given, say: Callable[[str], None]) -> int:
    """Writes the chunks of a package, unless they are there; the exit status is 1 if they do not
    give what it gives.

    Raises:
        MILError: it cannot be cut.
        BundleError: a chunk is there that sdbuild did not make.
    """
    source = outside_path(flags.mlpackage_path, "--mlpackage-path")
    output = Output(outside_path(flags.o, "-o"))
    stem = source.name.removesuffix(PACKAGE)
    names = [f"{stem}_chunked_pipeline{PACKAGE}"] if flags.merge_chunks_in_pipeline_model \
        else [f"{stem}_chunk{number}{PACKAGE}" for number in (1, 2)]
    made = [output.path(name) for name in names]
    if not source.is_dir():
        are_there = all(output.state(name) == OURS for name in names)
        raise MILError(f"{source}: there is no such package", hint=(
            f"its chunks are in {output.folder} already" if are_there else ""))
    is_new = cut_in_two(output, source, tree_digest(source), names)
    for path in made:
        say(f"{path}  {size(_bytes(path)) if is_new else 'up to date'}")
    status = 0
    if flags.check_output_correctness:
        psnr = _worst_psnr_db(source, made)
        found = "no difference" if psnr == math.inf else f"{psnr:.1f} dB"
        say(f"{found} between the package and its chunks")
        status = 0 if psnr >= _LEAST_PSNR_DB else 1
    if flags.remove_original and status == 0:
        shutil.rmtree(source)
        say(f"{source}: removed")
    return status


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in files(folder))


def _worst_psnr_db(source: Path, chunks: Sequence[Path]) -> float:
    """Returns the least PSNR, over the outputs, of what chunks give against their package, in dB;
    infinity if it is the same."""
    from sdbuild.mil.cli.run import predict
    from sdbuild.mil.inspect.summary import read_models

    def outputs(paths: Sequence[Path]) -> dict[str, np.ndarray]:
        models = [model for path in paths for model in read_models(path)]
        *_, last = predict(models, {})
        return dict(last.outputs)

    wanted, found = outputs([source]), outputs(chunks)
    return min(psnr_db(one, found[name]) for name, one in wanted.items())


def psnr_db(wanted: np.ndarray, found: np.ndarray) -> float:
    """Returns the PSNR of one array against another in dB: infinity if both are the same, minus
    infinity if only one of them is finite somewhere."""
    import numpy as np

    if np.array_equal(wanted, found, equal_nan=True):
        return math.inf
    error = float(np.mean((wanted.astype(np.float64) - found.astype(np.float64)) ** 2))
    peak = float(np.abs(wanted).max())
    decibels = float(20 * np.log10(peak) - 10 * np.log10(error)) if peak else -math.inf
    return decibels if math.isfinite(decibels) else -math.inf
