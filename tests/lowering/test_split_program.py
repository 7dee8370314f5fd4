"""The split layouts as ML Programs: the operations that the Neural Engine wants, and no others."""

import json
import shutil
import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from safetensors.torch import save_file
from torch import nn

from sdbuild.families import Component, Port
from sdbuild.lowering import bind
from sdbuild.mil.compile.compile import compile_package
from sdbuild.mil.execute.execute import Executor
from sdbuild.mil.files.package import write_package
from sdbuild.mil.files.read import read_model
from sdbuild.mil.ir.decode import decode_program
from sdbuild.models.split_einsum import ChannelNorm, SplitBlock
from sdbuild.models.split_einsum_v2 import QUERY_BLOCK
from sdbuild.safetensors.tensors import table

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sdbuild.lowering import coreml, once

pytestmark = pytest.mark.filterwarnings("ignore")
HEADS, CHANNELS, TOKENS, WORDS = 4, 64, 1100, 77
COMPONENT = Component(
    name="block", bundle_name="Block", folder="block",
    inputs=(Port(name="x", shape=(), dtype="fp16", meaning=""),
            Port(name="prompt", shape=(), dtype="fp16", meaning="")),
    outputs=(Port(name="y", shape=(), dtype="fp32", meaning=""),),
)
# Two attentions: each has four convolutions, transposes and scales its keys, and splits queries,
# keys and values into heads; a head has two products around its softmax. Then the feed-forward.
ONCE = {
    "layer_norm": 3, "batch_norm": 3, "conv": 2 * 4 + 2, "transpose": 2, "mul": 2 + 1,
    "split": 2 * 3 + 1, "concat": 2, "add": 3, "gelu": 1,
}
BLOCKS = 3  # of 512, 512 and 76 queries
WHOLE = ONCE | {"einsum": 2 * 2 * HEADS, "softmax": 2 * HEADS}
CUT = ONCE | {
    "einsum": BLOCKS * 2 * 2 * HEADS, "softmax": BLOCKS * 2 * HEADS,
    "split": ONCE["split"] + 2 * HEADS, "concat": ONCE["concat"] + 2 * HEADS,
}


def graph(network, *shapes):
    inputs = tuple(torch.zeros(shape, device="meta") for shape in shapes)
    return torch.export.export(network.to("meta").eval(), inputs).run_decompositions({})


def block_graph(query_block):
    """A transformer's block, alone."""
    whole = BasicTransformerBlock(
        CHANNELS, HEADS, CHANNELS // HEADS, cross_attention_dim=48, activation_fn="geglu"
    )
    return graph(SplitBlock(whole, query_block), (2, CHANNELS, 1, TOKENS), (2, 48, 1, WORDS))


def weights(program):
    rng = torch.Generator().manual_seed(0)
    return {n: torch.randn(t.shape, generator=rng) for n, t in program.state_dict.items()}


def direct(program, folder, target="iOS16"):
    """Returns coremltools' conversion of a graph and its weights: the message, and a package of
    it."""
    inputs = COMPONENT.inputs[:len(program.graph_signature.user_inputs)]
    spec, file = coreml.lower(
        program, weights(program), replace(COMPONENT, inputs=inputs), target
    )
    package = folder / "Block.mlpackage"
    write_package(
        package, specification_version=spec.specificationVersion, description=spec.description,
        program=decode_program(spec.mlProgram),
        weights=shutil.copyfile(file, folder / "weight.bin"),
    )
    return spec, package


@pytest.fixture(scope="module")
def directly(tmp_path_factory):
    """The block with all queries at once, converted directly."""
    return direct(block_graph(None), tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module", params=[None, QUERY_BLOCK], ids=["whole", "cut"])
def layout(request, directly, tmp_path_factory):
    """A layout's operations and constants, and how many operations of each type it should have."""
    if request.param is None:
        return *operations(directly[0]), WHOLE
    spec, _ = direct(block_graph(request.param), tmp_path_factory.mktemp("cut"))
    return *operations(spec), CUT


def operations(spec):
    """The operations that compute, without the casts at the ports; and the constants, by name."""
    found = decode_program(spec.mlProgram).main.block.operations
    constants = {o.outputs[0].name: o.attributes["val"] for o in found if o.type == "const"}
    return [o for o in found if o.type not in ("const", "cast")], constants


def test_a_block_has_these_operations_and_no_others(layout):
    """No reshape, and no transposition but that of each attention's keys."""
    found, _, expected = layout

    assert Counter(o.type for o in found) == expected


def test_every_tensor_has_four_axes_and_one_row(layout):
    found, _, _ = layout
    shapes = {out.type.shape for o in found for out in o.outputs}

    assert {(len(shape), shape[2]) for shape in shapes} == {(4, 1)}


def test_the_products_have_the_form_that_the_neural_engine_multiplies(layout):
    """`nchw,nwhu->nchu` is the only equation on four axes that MIL has, by whatever letters."""
    found, constants, _ = layout

    equations = {constants[o.inputs["equation"][0]].data[0] for o in found if o.type == "einsum"}

    assert equations == {"bkhc,bchq->bkhq", "bchk,bkhq->bchq"}
    for equation in equations:
        n, c, h, w = equation[:4]
        u = equation[8]
        assert equation == f"{n}{c}{h}{w},{n}{w}{h}{u}->{n}{c}{h}{u}"


def test_the_scores_of_a_cut_head_are_of_no_more_queries_than_a_block_has(tmp_path):
    spec, _ = direct(block_graph(QUERY_BLOCK), tmp_path)
    found, _ = operations(spec)

    queries = [o.outputs[0].type.shape[3] for o in found if o.type == "softmax"]

    assert queries == [512, 512, 76] * 2 * HEADS


@pytest.mark.parametrize("target", ["iOS16", "iOS17", "iOS18"])
def test_apps_find_the_key_by_which_they_know_the_layout(target, tmp_path):
    """MochiDiffusion and Guernika pair a U-Net that has it with the Neural Engine."""
    _, package = direct(block_graph(None), tmp_path, target)

    compile_package(package, tmp_path / "Block.mlmodelc")

    found = json.loads((tmp_path / "Block.mlmodelc" / "metadata.json").read_text())[0]
    assert found["mlProgramOperationTypeHistogram"]["Ios16.einsum"] == WHOLE["einsum"]


def test_bound_to_a_lowered_program_it_is_the_directly_converted_one_byte_for_byte(
    directly, tmp_path,
):
    """The matrices have become kernels of convolutions, whose axes of size 1 bear no bytes."""
    program = block_graph(None)
    found = once.lower(program, COMPONENT, "iOS16", tmp_path)
    save_file(weights(program), tmp_path / "w.safetensors")

    bind.bind(found, table([tmp_path / "w.safetensors"]), tmp_path / "Block.mlpackage",
              directly[0].description)

    assert content(tmp_path / "Block.mlpackage") == content(directly[1])


def test_a_token_whose_squares_fp16_cannot_hold_is_normalized(tmp_path):
    program = graph(ChannelNorm(nn.LayerNorm(CHANNELS)), (2, CHANNELS, 1, WORDS))
    x = 1000 * torch.randn(2, CHANNELS, 1, WORDS, generator=torch.Generator().manual_seed(1))
    tensors = weights(program)
    _, package = direct(program, tmp_path)

    found = Executor(read_model(package)).predict({"x": x.numpy()})["y"]

    expected = nn.functional.layer_norm(
        x.movedim(1, 3), (CHANNELS,), tensors["weight"], tensors["bias"]
    ).movedim(3, 1)
    assert np.abs(found - expected.numpy()).max() < 0.01


def content(package):
    return {p.relative_to(package).as_posix(): p.read_bytes()
            for p in package.rglob("*") if p.is_file()}
