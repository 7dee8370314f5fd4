"""Sparsify: weights of small magnitude replaced by zeros that take no bytes, package to package.

How a program is walked and written is `compress.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path

import numpy as np

from sdbuild.base.errors import MILError
from sdbuild.mil.compress.compress import Selection, compress
from sdbuild.mil.compress.packed_weights import (
    Method,
    Packed,
    Part,
    Task,
    TensorReport,
    Unpacking,
    loss,
    part,
    refuse_not_finite,
    report,
    shape_part,
)
from sdbuild.mil.files.arrays import pack_bits
from sdbuild.mil.ir.program import TensorType

MIN_SPARSITY = 0.5
"""The least share of zeros by which `sparsify` prunes with a threshold by default."""
_MASK_BITS = 1


def sparsify(
    source: Path, destination: Path, *, sparsity: float | None = None,
    threshold: float | None = None, min_sparsity: float = MIN_SPARSITY, min_elements: int = 2048,
    skip: Sequence[str] = (), skip_types: Sequence[str] = (), workers: int = 1,
) -> tuple[TensorReport, ...]:
    """Prunes the weights of the package `source` into a package at `destination`.

    Taken are the constants that `palettize` takes. Either the share `sparsity` of each tensor's
    elements becomes zero, rounded down, those of least magnitude and among equal ones the first;
    or all up to `threshold`; a tensor of which less than `min_sparsity` would be zero then stays as
    it is.

    Before:
        w = const(val=…) ; y = conv(weight=w, …)
    After, iOS 16 and 17:
        w_sparsified = constexpr_sparse_to_dense[mask=…, nonzero_data=…, shape=…]
        y = conv(weight=w_sparsified, …)
    After, iOS 18:
        w_sparsified = constexpr_sparse_to_dense(mask=…, nonzero_data=…)
        y = conv(weight=w_sparsified, …)

    Raises:
        MILError: not one of `sparsity` and `threshold`, weights are packed already, a pattern fits
            no constant, a tensor holds NaN or infinity, or `destination` exists.
        InvalidProgram: `source` is not a sound package.
    Units:
        sparsity, min_sparsity: shares of the elements, 0 to 1
    Source:
        coremltools 9.0, `prune_weights` with `OpMagnitudePrunerConfig` and
        `OpThresholdPrunerConfig` (BSD-3-Clause). There all elements of the magnitude where the
        share ends become zero: those of a weight of only -c and c at any share.
    """
    if (sparsity is None) == (threshold is None):
        raise MILError("expected either a sparsity or a threshold")
    for name, share in (("sparsity", sparsity), ("least sparsity", min_sparsity)):
        if share is not None and not 0 <= share <= 1:
            raise MILError(f"a {name} of {share}, expected 0 to 1")
    if threshold is not None and not threshold >= 0:
        raise MILError(f"a threshold of {threshold}, expected 0 or more")
    selection = Selection(nbits=_MASK_BITS, min_elements=min_elements, skip=skip,
                          skip_types=skip_types)
    pack = (partial(_pack_below, threshold, min_sparsity) if threshold is not None
            else partial(_pack_share, sparsity or 0.0))
    method = Method(suffixes=("_sparsified",), allows=lambda bits, opset: None, pack=pack)
    return compress(source, destination, selection, method, workers)


def _pack_share(sparsity: float, task: Task, array: np.ndarray) -> Packed:
    """Returns the elements of a tensor but the share of least magnitude."""
    sizes = _magnitudes(array).reshape(-1)
    mask = sizes > 0
    count = int(Decimal(str(sparsity)) * sizes.size)  # 0.29 of 100 are 29, not 28.99…
    if count:
        last = np.partition(sizes, count - 1)[count - 1]
        equal, is_less = np.flatnonzero(sizes == last), sizes < last
        mask[is_less] = False
        mask[equal[:count - int(is_less.sum())]] = False
    return _pack(task, array, mask.reshape(array.shape))


def _pack_below(
    threshold: float, min_sparsity: float, task: Task, array: np.ndarray
) -> Packed | None:
    """Returns the elements of a tensor above `threshold`; None if too few are below."""
    mask = _magnitudes(array) > threshold
    return _pack(task, array, mask) if 1 - mask.mean() >= min_sparsity else None


def _magnitudes(array: np.ndarray) -> np.ndarray:
    """Returns the magnitude of each element, all of them finite.

    Shapes:
        returns: float32, as `array`
    """
    sizes = np.abs(array.astype(np.float32))
    refuse_not_finite(array, sizes.max(keepdims=True))
    return sizes


def _pack(task: Task, array: np.ndarray, mask: np.ndarray) -> Packed:
    """Returns the elements where the mask is set, in the form of the opset.

    Shapes:
        array, mask: as the weight
        result: iOS 18: mask as the weight; before: flat bytes; nonzero_data (elements,)
    """
    kind, kept = task.type, array[mask]
    bits = pack_bits(mask.astype(np.uint8), _MASK_BITS)
    form = ("uint1", kind.shape) if task.as_argument else ("uint8", (len(bits),))
    parts = {"mask": Part(TensorType(*form), bits),
             "nonzero_data": part(kind.dtype, kept)}
    if not task.as_argument:
        parts["shape"] = shape_part(kind.dims)
    operations = (Unpacking(operation="constexpr_sparse_to_dense", parts=parts, result=kind),)
    return Packed(operations=operations,
                  report=report(task, operations, loss(array, np.where(mask, array, 0))))
