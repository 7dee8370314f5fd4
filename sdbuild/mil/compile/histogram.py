"""The names under which `metadata.json` counts operations.

The compiler names an operation by the newest opset, up to the function's, that redefined it in the
compiler's own operator set: `Ios16.reduceMean`; one never redefined since iOS 15 is `Concat`. That
set is not public and redefines more than coremltools' does. So the table holds the names seen in
public compiled models, then names that follow from those; each row says why. The counts are for
people, but for one key: apps take a U-Net for the split-einsum kind if it has `Ios16.einsum`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sdbuild.base.errors import UnsupportedFormat

_BINARY = (
    "add equal floor_div greater greater_equal less less_equal logical_and logical_or logical_xor "
    "maximum minimum mod mul not_equal pow real_div sub"
)
_UNARY = (
    "abs acos asin atan atanh ceil cos cosh erf exp exp2 floor logical_not round sign sin sinh "
    "sqrt square tan tanh threshold"
)
_REDUCTION = (
    "reduce_l1_norm reduce_l2_norm reduce_log_sum reduce_log_sum_exp reduce_max reduce_mean "
    "reduce_min reduce_prod reduce_sum reduce_sum_square"
)
_POOL = "avg_pool l2_pool max_pool"
_PLAIN_ACTIVATION = "gelu relu relu6 sigmoid silu softmax softplus softsign"
_NORMALIZATION = "batch_norm instance_norm l2_norm layer_norm local_response_norm"
_REARRANGING = "band_part depth_to_space fill one_hot pixel_shuffle space_to_depth"

_SEEN = "seen in public compiled models"
_BELOW = "follows from the name seen under a newer opset: a redefinition stays"
_REDEFINED = "coremltools redefines it in this opset; all of those seen have its prefix"


@dataclass(frozen=True, slots=True)
class Row:
    """Operations whose newest definition under `opset` is that of `prefix` (none: iOS 15)."""

    opset: str
    prefix: str
    why: str
    operations: str


TABLE = (
    Row("CoreML6", "", _SEEN,
        "concat expand_dims fill pad range_1d select shape slice_by_index split squeeze tile "
        "transpose upsample_nearest_neighbor"),
    Row("CoreML6", "Ios16", _SEEN,
        "add batch_norm cast clip constexpr_affine_dequantize constexpr_lut_to_dense "
        "constexpr_sparse_to_dense conv einsum gather gelu layer_norm less linear log lstm matmul "
        "maximum mul pow real_div reduce_argmax reduce_l2_norm reduce_max reduce_mean relu "
        "reshape rsqrt sigmoid silu softmax sqrt square sub"),
    Row("CoreML6", "", _BELOW, "identity stack"),
    Row("CoreML6", "Ios16", _BELOW, "avg_pool cumsum fill_like reduce_sum upsample_bilinear"),
    Row("CoreML6", "Ios16", _REDEFINED, "crop_resize gather_along_axis gather_nd resample topk"),
    Row("CoreML6", "Ios16", "computes, as all seen that compute",
        f"{_BINARY} {_UNARY} {_REDUCTION} {_POOL} {_PLAIN_ACTIVATION} {_NORMALIZATION} "
        "conv_transpose elu gru inverse leaky_relu reduce_argmin"),
    Row("CoreML6", "", "only moves elements, as all seen that do but reshape",
        f"{_REARRANGING} reverse slice_by_size"),

    Row("CoreML7", "", _SEEN,
        "fill identity pad range_1d select shape split stack tile upsample_nearest_neighbor"),
    Row("CoreML7", "Ios16", _SEEN,
        "avg_pool constexpr_affine_dequantize constexpr_lut_to_dense cumsum einsum fill_like gelu "
        "reduce_l2_norm reduce_mean reduce_sum relu sigmoid silu softmax upsample_bilinear"),
    Row("CoreML7", "Ios17", _SEEN,
        "abs add atan batch_norm cast clip concat conv cos elu equal expand_dims floor floor_div "
        "gather gather_along_axis greater greater_equal instance_norm layer_norm less linear log "
        "logical_and logical_not lstm matmul maximum minimum mul not_equal pow real_div "
        "reduce_argmax reshape rsqrt sin slice_by_index sqrt squeeze sub tanh topk transpose"),
    Row("CoreML7", "Ios17", _REDEFINED,
        "conv_transpose crop_resize dequantize gather_nd gru inverse l2_norm leaky_relu "
        "local_response_norm quantize reduce_argmin resample resize reverse scatter "
        "scatter_along_axis scatter_nd slice_by_size"),
    Row("CoreML7", "Ios17", "elementwise, as all of those seen that coremltools left alone",
        f"{_BINARY} {_UNARY}"),
    Row("CoreML7", "Ios16", "coremltools left it alone, as the four of its kind seen",
        f"{_REDUCTION} {_POOL}"),
    Row("CoreML7", "Ios16", "takes no parameters, as the five activations seen",
        _PLAIN_ACTIVATION),
    Row("CoreML7", "Ios16", "seen in iOS 16, and coremltools left it alone since",
        "constexpr_sparse_to_dense"),
    Row("CoreML7", "", "coremltools left it alone, as fill, split, stack and tile", _REARRANGING),

    Row("CoreML8", "", _SEEN, "band_part fill one_hot pad range_1d select shape split tile"),
    Row("CoreML8", "Ios16", _SEEN, "reduce_l2_norm reduce_mean reduce_sum"),
    Row("CoreML8", "Ios18", _SEEN,
        "add cast clip concat constexpr_blockwise_shift_scale constexpr_lut_to_dense conv "
        "conv_transpose cos dequantize equal expand_dims gather gelu greater_equal layer_norm "
        "linear logical_and matmul maximum mul pow quantize read_state real_div relu reshape "
        "rsqrt scaled_dot_product_attention silu sin slice_by_index slice_update softmax squeeze "
        "sub tanh transpose write_state"),
    Row("CoreML8", "Ios18", _REDEFINED,
        "constexpr_lut_to_sparse constexpr_sparse_blockwise_shift_scale "
        "constexpr_sparse_to_dense gru"),
    Row("CoreML8", "Ios18", "has the prefix of iOS 17 there, as all of those seen",
        f"{_BINARY} {_UNARY} {_NORMALIZATION} crop_resize elu gather_along_axis gather_nd inverse "
        "leaky_relu log lstm reduce_argmax reduce_argmin resample resize reverse scatter "
        "scatter_along_axis scatter_nd slice_by_size topk"),
    Row("CoreML8", "Ios18", "an activation, as the four seen", _PLAIN_ACTIVATION),
    Row("CoreML8", "Ios16", "has the prefix of iOS 16 in iOS 17, as the three reductions seen",
        f"{_REDUCTION} {_POOL} cumsum einsum fill_like upsample_bilinear"),
    Row("CoreML8", "", "has no prefix in iOS 17, as all nine seen",
        f"{_REARRANGING} identity stack upsample_nearest_neighbor"),
)
"""For each opset the names seen first, then those derived: the first row that has one counts."""

_PREFIXES = {
    (row.opset, operation): row.prefix
    for row in reversed(TABLE) for operation in row.operations.split()
}


def histogram_name(operation: str, opset: str) -> str:
    """Returns the name under which an operation of a function of `opset` is counted.

    Raises:
        UnsupportedFormat: the name is neither known nor follows from known ones.
    Source:
        `metadata.json` of public compiled models, listed in `docs/formats/mlmodelc.md`.
    """
    words = "".join(word.capitalize() for word in operation.split("_"))
    if opset == "CoreML5":
        return words
    prefix = _PREFIXES.get((opset, operation))
    if prefix is None:
        raise UnsupportedFormat(
            f"operation {operation}: under which name compiled models of opset {opset} count it "
            "is not known",
            hint="If a compiled model shows the name, add it to sdbuild/mil/compile/histogram.py.",
        )
    return f"{prefix}.{words[0].lower()}{words[1:]}" if prefix else words
