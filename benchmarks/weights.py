"""Loops over weights against the plainest way to do the same: ratios in a table.

    python -m benchmarks.weights [--elements N] [--tensors N]

Everything is processor time of this process, so that other work on the machine counts little.
K-means, histograms and packing are compared with numpy's code, which makes the same bytes; what
streams a checkpoint is compared with a copy of it.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import work_folder
from sdbuild.lowering.bind import bind
from sdbuild.lowering.lowered import Binding, Lowered
from sdbuild.mil.compress import kernels, kmeans, partition
from sdbuild.mil.files.blob import BlobAllocator, BlobWriter
from sdbuild.mil.ir.encode import encode_program
from sdbuild.mil.ir.proto import messages
from sdbuild.mil.text.parse import parse_program
from sdbuild.safetensors.decode import expect_finite
from sdbuild.safetensors.tensors import Tensor, table, write

HEAD = "| benchmark | time | alternative | time | ratio |\n| --- | ---: | --- | ---: | ---: |"
_TEXT = """program(1.0) { func main<ios16>(tensor<fp32, [4]> input) {
    tensor<fp32, [4]> output = relu(x = input); } -> (output); }"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.weights")
    parser.add_argument("--elements", type=int, default=3_000_000, help="of a tensor")
    parser.add_argument("--tensors", type=int, default=8)
    given = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    arrays = [(rng.standard_normal(given.elements, np.float32) / 40).astype(np.float16)
              for _ in range(given.tensors)]
    print(HEAD, flush=True)
    palettes(arrays)
    with work_folder(None) as work:
        streams(arrays, work)
    return 0


def palettes(arrays: Sequence[np.ndarray]) -> None:
    """Prints a row for each loop of palettize, compiled against numpy's."""
    found = [kmeans.histogram(array) for array in arrays]
    both("histogram", lambda: [kmeans.histogram(array) for array in arrays])
    seconds = {
        bits: both(f"k-means, {bits} bits", functools.partial(_clustered, found, bits))
        for bits in (4, 6, 8)
    }
    row("k-means, 8 bits", seconds[8], "4 bits", seconds[4])
    tables = [kmeans.palette(each, 6, np.dtype(np.float16)) for each in found]
    both("look-up and packing, 6 bits", lambda: [
        kmeans.packed_indices(*pair, 6) for pair in zip(tables, arrays, strict=True)])


def streams(arrays: Sequence[np.ndarray], work: Path) -> None:
    """Prints a row for each step that streams a checkpoint, against a copy of it."""
    source, made = work / "source", work / "made"
    stored, parts = work / "w.safetensors", []
    source.write_bytes(b"".join(array.tobytes() for array in arrays))
    for number, array in enumerate(arrays):
        parts.append(Tensor(name=f"w{number}", dtype="F16", shape=array.shape, file=source,
                            start=number * array.nbytes, size_bytes=array.nbytes))
    copied = spent(lambda: shutil.copyfile(source, made))
    written = spent(lambda: write(stored, parts, expect_finite))
    row("download: checked, hashed, written", written, "plain copy", copied)
    lowered, tensors = program(arrays, work), table([stored])
    bound = spent(lambda: bind(lowered, tensors, work / "W.mlpackage", lowered.spec.description))
    row("convert: bound", bound, "plain copy", copied)


def program(arrays: Sequence[np.ndarray], work: Path) -> Lowered:
    """A lowered program with a place for each array."""
    spec = messages("Model").Model(specificationVersion=7)
    spec.mlProgram.CopyFrom(encode_program(parse_program(_TEXT)))
    with BlobWriter(work / "constants.bin"):
        pass
    places = BlobAllocator()
    bindings = tuple(
        Binding(dtype="fp16", shape=array.shape, offset=places.allocate(array.nbytes),
                parameter=f"w{number}") for number, array in enumerate(arrays))
    return Lowered(spec=spec, parameters={f"w{n}": a.shape for n, a in enumerate(arrays)},
                   bindings=bindings, constants=work / "constants.bin")


def _clustered(histograms: Sequence[Any], bits: int) -> None:
    for each in histograms:
        kmeans.palette(each, bits, np.dtype(np.float16))


def both(what: str, run: Callable[[], object]) -> float:
    """Prints the row of what runs with the kernels and with numpy; the seconds with them."""
    seconds = []
    for found in (kernels, None):
        for module in (kmeans, partition):
            setattr(module, "kernels", lambda elements, found=found: found)  # noqa: B010
        seconds.append(spent(run))
    row(what, seconds[0], "numpy", seconds[1])
    return seconds[0]


def spent(run: Callable[[], object]) -> float:
    """The seconds of processor time that a call takes."""
    start = time.process_time()
    run()
    return time.process_time() - start


def row(what: str, ours: float, other: str, theirs: float) -> None:
    """Prints a row."""
    print(f"| {what} | {ours:.2f} s | {other} | {theirs:.2f} s | {ours / theirs:.2f} |",
          flush=True)


if __name__ == "__main__":
    sys.exit(main())
