"""Data types of a function as `metadata.json` of a compiled model names them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sdbuild.base.errors import InvalidProgram, UnsupportedFormat
from sdbuild.mil.ir.dtype import DTYPES
from sdbuild.mil.ir.program import Blob, Function, Operation, TensorType, Type, Value


def compute_precision(function: Function) -> str:
    """Returns the data types of all outputs and referenced inputs, but for those of constants."""
    types = {item.name: item.type for item in function.inputs}
    used = []
    for operation in function.block.operations:
        types.update((item.name, item.type) for item in operation.outputs)
        if operation.type != "const":
            used += [_type_of(name, operation, types) for name in operation.references()]
            used += [item.type for item in operation.outputs]
    return _joined(_numeric(kind) for kind in used)


def _type_of(name: str, operation: Operation, types: dict[str, Type]) -> Type:
    if name not in types:
        raise InvalidProgram(
            f"{operation.type} {operation.name}: {name!r} is not defined before it"
        )
    return types[name]


def _numeric(kind: Type) -> str | None:
    return DTYPES[kind.dtype].metadata_name if isinstance(kind, TensorType) else None


def storage_precision(function: Function) -> str:
    """Returns how the constants of a function are stored, or nothing if none lies in a weight
    file."""
    operations = function.block.operations
    if not any(isinstance(v.data, Blob) for op in operations for v in op.constants()):
        return ""
    types = {item.name: item.type for operation in operations for item in operation.outputs}
    return _joined(
        word for operation in operations for word in _storage(operation, function.opset, types)
    )


def _storage(operation: Operation, opset: str, types: Mapping[str, Type]) -> list[str | None]:
    """Returns what an operation adds to `storagePrecision`.

    An iOS 18 palette was seen with 8 bits and one table (`Palettized (8 bits), UInt8`); that other
    numbers of bits and of tables are called likewise is derived.
    """
    match operation.type:
        case "const":
            value = _attribute(operation, "val")
            return [_numeric(value.type)] if isinstance(value.data, Blob) else []
        case "constexpr_affine_dequantize":
            return [_numeric(_attribute(operation, "quantized_data").type)]
        case "constexpr_lut_to_dense" if opset != "CoreML8":
            return [f"Palettized ({_index_bits(_attribute(operation, 'lut'))} bits)"]
        case "constexpr_lut_to_dense":
            kind = _argument_type(operation, "indices", types)
            return [f"Palettized ({DTYPES[kind.dtype].bits} bits)", _numeric(kind)]
        case "constexpr_sparse_to_dense" if opset != "CoreML8":
            return ["Sparse"]
        case "constexpr_blockwise_shift_scale":
            return [_numeric(_argument_type(operation, "data", types))]
        case kind if kind.startswith("constexpr_"):
            raise UnsupportedFormat(
                f"{kind} {operation.name}: how its storage is described under opset {opset} is "
                "not known",
                hint="Compress weights for iOS 17 or earlier, or compile on a Mac.",
            )
    return []


def _argument_type(operation: Operation, key: str, types: Mapping[str, Type]) -> TensorType:
    """Returns the type of an argument that has to be a tensor."""
    for binding in operation.inputs.get(key, ()):
        kind = types.get(binding) if isinstance(binding, str) else binding.type
        if isinstance(kind, TensorType):
            return kind
    raise InvalidProgram(f"{operation.type} {operation.name} has no tensor called {key!r}")


def _attribute(operation: Operation, key: str) -> Value:
    if key not in operation.attributes:
        raise InvalidProgram(f"{operation.type} {operation.name} has no attribute {key!r}")
    return operation.attributes[key]


def _index_bits(table: Value) -> int:
    """Returns the bits that an index into a lookup table takes."""
    count = table.type.count if isinstance(table.type, TensorType) else None
    if not count:
        raise InvalidProgram(f"a lookup table has the type {table.type}")
    return (count - 1).bit_length()


def _joined(names: Iterable[str | None]) -> str:
    distinct = sorted({name for name in names if name is not None})
    return f"Mixed ({', '.join(distinct)})" if len(distinct) > 1 else "".join(distinct)
