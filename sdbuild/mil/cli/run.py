"""Models executed from the outside: inputs from files or a seed, outputs summarized and saved.

The executor itself is `execute/execute.py`; here are the programs of a pipeline in a row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sdbuild.base.errors import InvalidProgram, MILError
from sdbuild.mil.execute.executable import LARGEST_ELEMENTS
from sdbuild.mil.execute.execute import Executor, first_nonfinite
from sdbuild.mil.files.arrays import to_array
from sdbuild.mil.files.package import Model
from sdbuild.mil.files.validate import refuse_contradictions
from sdbuild.mil.inspect.summary import feature_text
from sdbuild.mil.ir.dtype import DTYPES
from sdbuild.mil.ir.program import Function, StateType, TensorType
from sdbuild.mil.ir.proto import Message
from sdbuild.mil.ir.traverse import walk

Shape = tuple[int, ...]

_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_LARGEST_INTEGER = 8  # random integers are below it: most are indices into something


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramRun:
    """The inputs and outputs of one program."""

    model: Model
    function: str
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]


def predict(
    models: Sequence[Model], given: Mapping[str, np.ndarray], *, function: str | None = None,
    seed: int = 0, weight_bytes: int | None = None,
) -> Iterator[ProgramRun]:
    """Runs programs in a row; what one gives, later ones take by name.

    An input that is neither given nor made is random, by `seed` and its name.

    Raises:
        MILError: an input is of no program, of a shape or with numbers that it does not allow, or
            is not given and of no known shape.
        InvalidProgram: an operation fails, a value is too large, or there is no such function.
        UnsupportedOp: operations that the executor lacks.
    Units:
        weight_bytes: of decoded constants that each program keeps, all if None.
    """
    values = dict(given)
    names = [_function_name(model, function) for model in models]
    functions = [model.program.functions[n] for model, n in zip(models, names, strict=True)]
    known = {name for chosen in functions for name in _tensors(chosen)}
    unknown = sorted(given.keys() - known)
    states = {item.name for chosen in functions for item in chosen.inputs} - known
    if states & set(unknown):
        raise MILError(f"states that were given: {', '.join(sorted(states & set(unknown)))}",
                       hint="States begin with zeros.")
    if unknown:
        raise MILError(f"inputs that no program has: {', '.join(unknown)}",
                       hint=f"The inputs are: {', '.join(sorted(known))}.")
    for model, name_of, chosen in zip(models, names, functions, strict=True):
        shapes = _shapes(model, chosen)
        _refuse_broken(model, chosen, shapes)
        _refuse_shapes(model, name_of, given)
        _refuse_rounding(chosen, given)
        for name, kind in _tensors(chosen).items():
            if name not in values:
                values[name] = _random(name, kind, shapes[name], seed)
        inputs = {name: values[name] for name in _tensors(chosen)}
        executor = Executor(model, function=name_of, weight_bytes=weight_bytes)
        outputs = executor.predict(inputs)
        values |= outputs
        yield ProgramRun(model=model, function=name_of, inputs=inputs, outputs=outputs)


def _function_name(model: Model, name: str | None) -> str:
    """Returns the function that is asked for, else the model's default, `main`, or the only one."""
    found = model.program.functions
    default = getattr(model.description, "defaultFunctionName", "")
    if name is None:
        name = default or (next(iter(found)) if len(found) == 1 else "main")
    if name not in found:
        raise InvalidProgram(
            f"{model.source}: no function {name!r}; found: {', '.join(found) or 'none'}",
            hint="--function NAME chooses one")
    return name


def _tensors(function: Function) -> dict[str, TensorType]:
    """Returns the inputs that are given, by name: all but states."""
    return {
        item.name: item.type if isinstance(item.type, TensorType) else TensorType("string")
        for item in function.inputs if not isinstance(item.type, StateType)
    }


def _shapes(model: Model, function: Function) -> dict[str, Shape | None]:
    """Returns the shape of each input and state, unknown dimensions as the description's
    default."""
    described = dict(model.input_shapes)
    for features in model.description.functions:
        described.update((f.name, tuple(f.type.multiArrayType.shape)) for f in features.input)
    found: dict[str, Shape | None] = {}
    for item in function.inputs:
        kind = item.type.wrapped if isinstance(item.type, StateType) else item.type
        is_known = not isinstance(kind, TensorType) or kind.count is not None
        dims = kind.dims if isinstance(kind, TensorType) and is_known else ()
        found[item.name] = dims if is_known else described.get(item.name) or None
    return found


def _refuse_broken(model: Model, function: Function, shapes: Mapping[str, Shape | None]) -> None:
    """Raises for contradictions, and for values too large to be allocated."""
    refuse_contradictions(model)
    made = {
        out.name: out.type.shape for operation in walk(function.block)
        for out in operation.outputs if isinstance(out.type, TensorType)
    }
    for name, shape in (*made.items(), *shapes.items()):
        sizes = [dim for dim in shape or () if isinstance(dim, int)]
        if math.prod(sizes) > LARGEST_ELEMENTS:
            raise InvalidProgram(
                f"{model.source}: {name} has the shape {sizes}, "
                f"expected at most {LARGEST_ELEMENTS} elements"
            )


def _refuse_shapes(model: Model, function: str, given: Mapping[str, np.ndarray]) -> None:
    """Refuses inputs of flexible shape that are of none that the description allows."""
    described = (next((f for f in model.description.functions if f.name == function), None)
                 or model.description)
    for feature in described.input:
        array, found = feature.type.multiArrayType, given.get(feature.name)
        if found is not None and not _allows(array, found.shape):
            raise MILError(f"input {feature.name}: found {list(found.shape)}, "
                           f"expected {feature_text(feature)}")


def _allows(array: Message, shape: Shape) -> bool:
    """Whether an array of the description may have a shape; of a fixed one nothing is asked."""
    match array.WhichOneof("ShapeFlexibility"):
        case "enumeratedShapes":
            return shape in {tuple(allowed.shape) for allowed in array.enumeratedShapes.shapes}
        case "shapeRange":
            sizes = array.shapeRange.sizeRanges
            return len(shape) == len(sizes) and all(
                size.lowerBound <= dim and (dim <= size.upperBound or size.upperBound < 0)
                for dim, size in zip(shape, sizes, strict=True))
    return True


def _refuse_rounding(function: Function, given: Mapping[str, np.ndarray]) -> None:
    """Refuses numbers that are not of the integers that an input takes; the executor casts them."""
    for name, kind in _tensors(function).items():
        array = given.get(name)
        if array is not None and kind.dtype in _INTEGERS and array.dtype.kind in "iuf":
            limits = np.iinfo(kind.dtype)
            fits = (array >= limits.min) & (array <= limits.max) & (np.floor(array) == array)
            if not fits.all():
                raise MILError(f"input {name}: {kind.dtype} cannot represent all of its numbers")


def _random(
    name: str, kind: TensorType, shape: Shape | None, seed: int
) -> np.ndarray:
    """Standard normal numbers, small integers, or coins, by `seed` and the input's name.

    Shapes:
        returns: `shape`
    """
    if shape is None or kind.dtype == "string":
        raise MILError(f"input {name}: its shape or type is not known",
                       hint=f"Give it: --input {name}=FILE.npy")
    generator = np.random.default_rng([seed, *name.encode()])
    if kind.dtype == "bool":
        return generator.integers(0, 2, shape).astype(bool)
    if "Int" in (DTYPES[kind.dtype].metadata_name or ""):
        return generator.integers(0, _LARGEST_INTEGER, shape).astype(np.int32)
    return generator.standard_normal(shape, np.float32)


def load_inputs(files: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Returns the arrays in `.npy` files, by the names of the inputs.

    Raises:
        MILError: a file is not there, or is no array of numbers.
    """
    return {name: _load(name, Path(file)) for name, file in files.items()}


def load_samples(files: Mapping[str, str]) -> list[dict[str, np.ndarray]]:
    """Returns the samples in `.npy` files, by the names of the inputs.

    Raises:
        MILError: a file is not there, or is no array of as many samples as the others.
    Shapes:
        each file: (samples, *input)
    """
    arrays = load_inputs(files)
    counts = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise MILError(f"samples: {said}; expected as many of each input",
                       hint="the first axis of each array counts the samples")
    return [{name: array[number] for name, array in arrays.items()}
            for number in range(min(counts.values(), default=0))]


def _load(name: str, file: Path) -> np.ndarray:
    if not file.is_file():
        raise MILError(f"input {name}: {file}: there is no such file")
    try:
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise MILError(f"input {name}: {file}: {error}") from error
    if not isinstance(found, np.ndarray):
        raise MILError(f"input {name}: {file}: an archive, expected one array")
    return found.astype(found.dtype.newbyteorder("="))


def where_not_finite(result: ProgramRun) -> str:
    """Returns where the NaN or infinity of a result comes from: an operation, a constant or an
    input."""
    made = first_nonfinite(result.model, result.inputs, function=result.function)
    if made is not None:
        return str(made)
    block = result.model.program.functions[result.function].block
    held = [(f"the constant {operation.name}", to_array(result.model, value))
            for operation in walk(block) for value in operation.constants()
            if isinstance(value.type, TensorType) and value.type.dtype in ("fp16", "fp32")]
    held += [(f"the input {name}", array) for name, array in result.inputs.items()]
    return "\n".join(
        f"{what} holds {int(np.isnan(array).sum())} NaN and {int(np.isinf(array).sum())} infinite"
        for what, array in held if not np.isfinite(array).all())


def summary(outputs: Mapping[str, np.ndarray]) -> list[dict]:
    """Shape, range and what is not finite of each output; the range is that of finite numbers."""
    return [_summary(name, array) for name, array in outputs.items()]


def _summary(name: str, array: np.ndarray) -> dict:
    numbers = array.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    return {
        "name": name, "dtype": str(array.dtype), "shape": array.shape,
        "min": float(finite.min()) if finite.size else 0.0,
        "max": float(finite.max()) if finite.size else 0.0,
        "mean": float(finite.mean()) if finite.size else 0.0,
        "nan": int(np.isnan(numbers).sum()), "inf": int(np.isinf(numbers).sum()),
    }


def save_outputs(folder: Path, outputs: Mapping[str, np.ndarray]) -> None:
    """Writes each output as `<name>.npy`.

    Raises:
        MILError: a name is no file name, so that it might lead out of the folder.
    """
    for name in outputs:
        if Path(name).name != name or "\0" in name:
            raise MILError(f"output {name!r} is no name for a file")
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in outputs.items():
        np.save(folder / f"{name}.npy", array)
