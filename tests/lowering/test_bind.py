"""Lower once, bind many: byte for byte what a direct conversion of the same weights gives."""

import shutil
import tracemalloc
import warnings

import numpy as np
import pytest
import torch
import xxhash
from safetensors.torch import save_file
from torch import nn

from sdbuild.base.errors import SourceError, StepError
from sdbuild.families import Component, Port
from sdbuild.lowering import bind
from sdbuild.lowering.lowered import read_lowered, write_lowered
from sdbuild.lowering.standins import StandIns
from sdbuild.mil.files.blob import BlobReader
from sdbuild.mil.files.package import write_package
from sdbuild.mil.ir.decode import decode_program
from sdbuild.safetensors.tensors import table

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sdbuild.lowering import coreml, once
    from sdbuild.lowering.recording import recording

pytestmark = pytest.mark.filterwarnings("ignore")
COMPONENT = Component(
    name="small", bundle_name="Small", folder="small",
    inputs=(Port(name="x", shape=(), dtype="fp16", meaning=""),),
    outputs=(Port(name="y", shape=(), dtype="fp32", meaning=""),),
)


class Small(nn.Module):
    """A network with every kind of weight in Stable Diffusion: blobs, values in place,
    constants."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 24, 3, padding=1)
        self.norm = nn.LayerNorm(16)
        self.linear = nn.Linear(16, 20, bias=False)
        self.matrix = nn.Parameter(torch.empty(20, 12))
        self.out = nn.Conv2d(24, 3, 1)  # its bias is written in place
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        x = self.linear(self.norm(self.conv(x))) @ self.matrix
        frequencies = torch.exp(torch.arange(12, device=x.device) / 7)
        return self.out(x * frequencies)


class TiedTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(16, 16))

    def forward(self, x):
        return (x @ self.weight.T) @ self.weight


def graph(network_class):
    with torch.device("meta"):
        network = network_class()
        inputs = (torch.zeros(1, 4, 16, 16),)
        return torch.export.export(network.eval(), inputs).run_decompositions({})


def weights(program, seed=0, scale=1.0):
    rng = torch.Generator().manual_seed(seed)
    return {name: torch.randn(t.shape, generator=rng) * scale
            for name, t in program.state_dict.items()}


def direct(network_class, tensors, folder):
    spec, file = coreml.lower(graph(network_class), tensors, COMPONENT, "iOS16")
    folder.mkdir()
    write_package(
        folder / "Small.mlpackage", specification_version=spec.specificationVersion,
        description=spec.description, program=decode_program(spec.mlProgram),
        weights=shutil.copyfile(file, folder / "weight.bin"),
    )
    return content(folder / "Small.mlpackage")


def lowered(network_class, folder):
    folder.mkdir()
    program = graph(network_class)
    write_lowered(folder, once.lower(program, COMPONENT, "iOS16", folder))
    return read_lowered(folder)


def bound(found, tensors, folder):
    folder.mkdir()
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "w.safetensors")
    bind.bind(found, table([folder / "w.safetensors"]), folder / "Small.mlpackage",
              found.spec.description)
    return content(folder / "Small.mlpackage")


def content(package):
    return {p.relative_to(package).as_posix(): p.read_bytes()
            for p in package.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The small network without its unused layer's parameters, lowered once."""
    return lowered(Used, tmp_path_factory.mktemp("small") / "lowered")


class Used(Small):
    def __init__(self):
        super().__init__()
        del self.unused


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_a_bound_package_is_the_directly_converted_one_byte_for_byte(small, tmp_path, dtype):
    tensors = {k: v.to(dtype) for k, v in weights(graph(Used)).items()}

    wanted = direct(Used, {k: v.float() for k, v in tensors.items()}, tmp_path / "direct")

    assert bound(small, tensors, tmp_path / "bound") == wanted


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_a_weight_file_that_is_not_written_has_the_same_digest_and_blobs(
    small, tmp_path, dtype, scale,
):
    tensors = {k: v.to(dtype) for k, v in weights(graph(Used), scale=scale).items()}
    file = bound(small, tensors, tmp_path / "bound")["Data/com.apple.CoreML/weights/weight.bin"]
    written = BlobReader(
        tmp_path / "bound" / "Small.mlpackage" / "Data/com.apple.CoreML/weights/weight.bin")

    found = bind.BoundBlobs(small, table([tmp_path / "bound" / "w.safetensors"]))

    assert found.digest() == (xxhash.xxh3_128_hexdigest(file), len(file))
    assert list(found.records()) == list(written.records())
    for record in written.records():
        assert bytes(found.data(record.offset)) == bytes(written.data(record.offset))


def test_a_package_without_its_weight_file_is_otherwise_the_same(small, tmp_path):
    tensors = weights(graph(Used))
    whole = bound(small, tensors, tmp_path / "whole")

    bind.bind(small, table([tmp_path / "whole" / "w.safetensors"]), tmp_path / "Small.mlpackage",
              small.spec.description, is_without_weights=True)

    del whole["Data/com.apple.CoreML/weights/weight.bin"]
    assert content(tmp_path / "Small.mlpackage") == whole


def test_a_torch_for_linux_gives_the_package_that_the_same_torch_gives_on_a_mac(
    tmp_path, monkeypatch,
):
    tensors = weights(graph(Used))

    made = {}
    for version in ("2.13.0", "2.13.0+cpu", "2.13.0+cu130", "2.13.1"):
        monkeypatch.setattr(torch, "__version__", type(torch.__version__)(version))
        made[version] = direct(Used, tensors, tmp_path / version)

    assert made["2.13.0"] == made["2.13.0+cpu"] == made["2.13.0+cu130"]
    assert made["2.13.0"] != made["2.13.1"]


def test_one_lowered_program_serves_every_checkpoint(small, tmp_path):
    for seed in (1, 2):
        tensors = weights(graph(Used), seed)

        wanted = direct(Used, tensors, tmp_path / f"direct{seed}")

        assert bound(small, tensors, tmp_path / f"bound{seed}") == wanted


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("scale", [1e-6, 1e-8])
def test_small_numbers_are_rounded_as_coremltools_rounds_them(small, tmp_path, scale, dtype):
    """In tensors of under 400 elements it keeps what fp16 would make zero."""
    tensors = {k: v.to(dtype) for k, v in weights(graph(Used), scale=scale).items()}

    wanted = direct(Used, {k: v.float() for k, v in tensors.items()}, tmp_path / "direct")

    assert bound(small, tensors, tmp_path / "bound") == wanted


def test_a_stand_in_costs_four_bytes_a_row():
    tensor = StandIns({"w": (8, 1000, 1000)}).tensors()["w"]

    assert tensor.shape == (8, 1000, 1000)
    assert tensor.untyped_storage().nbytes() == 32


class Wide(nn.Module):
    """An embedding table, as large beside the rest as a text encoder's."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50_000, 64)
        self.out = nn.Linear(64, 24)

    def forward(self, x):
        return self.out(self.table(x.to(torch.int32)))


def test_lowering_never_holds_a_weight_of_full_size(tmp_path):
    tracemalloc.start()
    try:
        lowered(Wide, tmp_path / "lowered")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 50_000 * 64 * 2


@pytest.mark.parametrize("number, is_too_large", [
    (1.0, False), (65504.0, False), (-1e5, True), (1e30, True), (-3.4e38, False),
])
def test_a_repeated_constant_is_too_large_for_fp16_where_coremltools_says_so(
    number, is_too_large,
):
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil.passes.defs.quantization import FP16ComputePrecision

    @Builder.program(input_specs=[Builder.TensorSpec(shape=(3, 5))])
    def program(x):
        return Builder.add(x=x, y=np.broadcast_to(np.float32([[1], [number], [0]]), (3, 5)))
    (operation,) = program.functions["main"].find_ops(op_type="add")
    assert 0 in operation.y.val.strides

    assert FP16ComputePrecision.fp16_overflow(operation) == is_too_large
    with recording():
        assert FP16ComputePrecision.fp16_overflow(operation) == is_too_large


def test_a_parameter_that_is_not_in_the_program_is_named(tmp_path):
    with pytest.raises(StepError, match=r"unused\.weight: 0 times"):
        lowered(Small, tmp_path / "lowered")


def test_a_parameter_that_is_used_twice_is_refused(tmp_path):
    with pytest.raises(StepError, match="  weight: 2 times"):
        lowered(TiedTwice, tmp_path / "lowered")


@pytest.mark.parametrize("value, message", [
    (float("nan"), "the tensor conv.weight holds NaN or infinity"),
    (float("inf"), "the tensor conv.weight holds NaN or infinity"),
    (1e5, "the tensor conv.weight reaches 100000, more than fp16 holds"),
])
def test_a_number_that_fp16_cannot_hold_is_an_error_that_names_the_tensor(
    small, tmp_path, value, message,
):
    tensors = weights(graph(Used))
    tensors["conv.weight"][5, 1, 1, 1] = value

    with pytest.raises(StepError, match=message):
        bound(small, tensors, tmp_path / "bound")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["conv.weight", "conv.bias", "matrix", "out.bias"])
def test_what_is_stored_in_fp16_already_is_refused_in_the_same_words(small, tmp_path, name, value):
    tensors = {k: v.half() for k, v in weights(graph(Used)).items()}
    tensors[name].view(-1)[-1] = value

    with pytest.raises(StepError, match=f"the tensor {name} holds NaN or infinity"):
        bound(small, tensors, tmp_path / "bound")


@pytest.mark.parametrize("name", ["conv.weight", "matrix", "out.bias"])
def test_a_tensor_that_is_none_of_floats_is_named(small, tmp_path, name):
    tensors = weights(graph(Used))
    tensors[name] = tensors[name].int()

    with pytest.raises(SourceError, match=f"{name} is I32, expected floats"):
        bound(small, tensors, tmp_path / "bound")


def test_nothing_heavy_is_needed_to_bind():
    import subprocess
    import sys

    code = "import sys, sdbuild.lowering.bind; print({'torch', 'coremltools'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"
