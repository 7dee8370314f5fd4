"""Bad input: a clear error, no traceback, nothing half-written, and the next build is good.

`Project.doit` itself asserts the exit status and that no traceback is printed.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sdbuild.store import SHIPPED, Store
from tests.e2e.project import running
from tests.waiting import wait_for

ROOT = Path(__file__).parent.parent.parent
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("word, message", [
    ("model=tiny-emogi", 'did you mean "tiny-emoji"?'),
    ("qunat=6", 'did you mean "quant"?'),
    ("quant=5", "expected one of none, 1, 2, 3, 4, 6, 8"),
])
def test_a_mistake_on_the_command_line_ends_with_status_2(project, word, message):
    printed = project.doit("build", word, status=2)

    assert message in printed
    assert "hint: " in printed


def test_a_task_that_does_not_exist_is_reported_by_doit(project):
    project.doit("biuld", status=3)


@pytest.mark.parametrize("file, message", [
    ("unet/config.json", "no unet/config.json, expected a checkpoint in diffusers' layout"),
    ("tokenizer/vocab.json", "no tokenizer/vocab.json"),
    (UNET, "no weights, expected diffusion_pytorch_model.safetensors or model.safetensors"),
])
def test_a_file_that_the_checkpoint_lacks_is_named(project, own_checkpoint, file, message):
    (own_checkpoint / file).unlink()

    printed = project.doit("build", status=1, source=own_checkpoint)

    assert message in printed
    assert not project.bundle.exists()


def test_a_checkpoint_folder_that_is_not_there_is_named(project, tmp_path):
    assert "there is no such folder" in project.doit("build", status=1, source=tmp_path / "none")


def test_weights_that_are_cut_short_are_refused(project, own_checkpoint):
    path = own_checkpoint / UNET
    path.write_bytes(path.read_bytes()[:-1000])

    printed = project.doit("build", status=1, source=own_checkpoint)

    assert "not a complete safetensors file" in printed
    assert "fetch it again" in printed


def test_a_pickle_is_refused_with_how_to_convert_it(project, own_checkpoint):
    (own_checkpoint / UNET).rename(own_checkpoint / "unet/diffusion_pytorch_model.bin")

    printed = project.doit("build", status=1, source=own_checkpoint)

    assert "diffusion_pytorch_model.bin is a pickle, which can run code" in printed
    assert "safe_serialization=True" in printed


def test_tensors_that_do_not_fit_the_architecture_are_all_named_with_both_shapes(
    project, own_checkpoint,
):
    path = own_checkpoint / UNET
    tensors = load_file(path)
    del tensors["conv_out.bias"]
    tensors["conv_norm_out.weight"] = np.zeros(9, np.float16)
    save_file(tensors, path)

    printed = project.doit("build", status=1, source=own_checkpoint)

    assert "conv_out.bias: missing, expected [4]" in printed
    assert "conv_norm_out.weight: found [9], expected [64]" in printed


@pytest.mark.parametrize("content, message", [
    ("{", "not JSON"), ("[]", "a list, expected a JSON object"),
    ('{"a": 1}', "it does not name a network"),
])
def test_a_config_that_is_none_is_named(project, own_checkpoint, content, message):
    (own_checkpoint / "unet/config.json").write_text(content)

    assert f"config.json: {message}" in project.doit(
        "download:unet", status=1, source=own_checkpoint
    )


def test_a_config_that_makes_no_network_is_reported(project, own_checkpoint):
    path = own_checkpoint / "text_encoder/config.json"
    config = json.loads(path.read_text()) | {"num_attention_heads": 7}  # divides no width here
    path.write_text(json.dumps(config))

    printed = project.doit("trace:text_encoder", status=1, source=own_checkpoint)

    assert "text_encoder: its config.json does not make a network: " in printed


def test_another_kind_of_network_is_refused(project, own_checkpoint):
    path = own_checkpoint / "unet/config.json"
    path.write_text(path.read_text().replace("UNet2DConditionModel", "SD3Transformer2DModel"))

    printed = project.doit("build", status=1, source=own_checkpoint)

    assert "its network is 'SD3Transformer2DModel', the transformer of Stable Diff" in printed
    assert "expected UNet2DConditionModel" in printed


@pytest.mark.parametrize("file, content, message", [
    ("tokenizer/vocab.json", "<html>404</html>", "vocab.json: not JSON"),
    ("tokenizer/vocab.json", "{}", "vocab.json: no number for <|"),
    ("tokenizer/merges.txt", "#version\na b c\n", "rule 1 is 'a b c', expected two words"),
])
def test_a_tokenizer_that_would_crash_a_host_is_refused(
    project, own_checkpoint, file, content, message,
):
    (own_checkpoint / file).write_text(content)

    assert message in project.doit("build", status=1, source=own_checkpoint)


def test_apples_compiler_is_missed_clearly(project):
    if sys.platform == "darwin":
        pytest.skip("it may be here")
    printed = project.doit("build", "compiler=apple", status=1)

    assert "compiler=apple: coremlcompiler is not here: it comes with Xcode" in printed


def test_a_folder_that_is_no_bundle_is_never_replaced(project, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo").write_text("x")

    printed = project.doit("build", status=2, bundle=tmp_path / "mine")

    assert "not a bundle, so it is left alone" in printed
    assert (tmp_path / "mine" / "photo").read_text() == "x"


def test_a_store_that_cannot_be_written_says_so(project, tmp_path):
    (tmp_path / "file").write_text("x")

    assert "not a folder, expected that of a store" in project.doit(
        "build", status=2, cache=tmp_path / "file"
    )


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("moment", [
    pytest.param("first record", marks=pytest.mark.slow), "in a step",
])
def test_a_build_that_is_interrupted_is_followed_by_a_good_one(built, tmp_path, how, moment):
    project = type(built)(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "doit", *project.command("compile:vae_encoder")], cwd=ROOT,
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    logs = {"first record": "records/*/*.json", "in a step": "work/*/in/checkpoint"}
    wait_for(lambda: list(project.cache.glob(logs[moment])), process)
    # Ctrl-C reaches the whole group; the kill only doit, whose step must not go on alone.
    if how == signal.SIGINT:
        os.killpg(process.pid, how)
    else:
        process.kill()
    printed = process.communicate()[0]
    assert process.returncode != 0
    assert "Traceback" not in printed

    project.doit("compile:vae_encoder")

    known = {r.key: r.digest() for r in Store(built.cache).records()}
    found = list(Store(project.cache).records())
    assert {r.step for r in found} >= {"convert:vae_encoder", "compile:vae_encoder"}
    for record in found:
        assert known[record.key] == record.digest()
        if record.origin != SHIPPED:  # graphs do not ship
            Store(project.cache).verify(record)
    assert list(project.cache.glob("work/*")) == []


def test_a_step_whose_parent_is_gone_ends_too(built, tmp_path):
    project = type(built)(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "doit", *project.command("trace:vae_encoder", "lower=here")],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: running(project.cache) and list(project.cache.glob("work/*/in/architecture")),
             process)
    process.kill()
    process.wait()

    wait_for(lambda: not running(project.cache))
    assert "trace:vae_encoder" not in {r.step for r in Store(project.cache).records()}


def generate(*arguments, status):
    done = subprocess.run(
        [sys.executable, "-m", "sdbuild", "generate", *map(str, arguments)], cwd=ROOT,
        capture_output=True, text=True, check=False,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == status, printed
    assert "Traceback" not in printed
    return printed


@pytest.fixture
def own_bundle(built, tmp_path):
    """A copy of the finished bundle that a test may break."""
    from sdbuild.bundle.install import install

    store = Store(built.cache)
    record = max((r for r in store.records() if r.step == "bundle"
                  and r.ingredients["params"]["components"]["unet"]["nbits"] == 6),
                 key=lambda r: r.made_at)
    install(record, store, tmp_path / "own")
    return tmp_path / "own"


@pytest.mark.parametrize("file", ["merges.txt", "UnetChunk2.mlmodelc/weights/weight.bin"])
def test_a_bundle_that_lacks_a_file_names_it(own_bundle, file):
    (own_bundle / file).unlink()

    assert f"{file} is missing" in generate(own_bundle, status=1)


def test_a_bundle_with_a_file_cut_short_names_it(own_bundle):
    path = own_bundle / "VAEDecoder.mlmodelc" / "model.mil"
    text = path.read_bytes()
    path.unlink()
    path.write_bytes(text[:-10])

    assert f"{len(text) - 10} bytes, expected {len(text)}" in generate(own_bundle, status=1)


@pytest.mark.parametrize("content, message", [
    (None, "no .mlmodelc and no .mlpackage in it"),
    ("{", "manifest.json: not JSON"), ("{}", "not a manifest of schema"),
    ('{"schema": 1, "files": {}}', "components is missing, expected an object"),
])
def test_a_folder_that_is_no_bundle_is_reported(tmp_path, content, message):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)

    assert message in generate(tmp_path, status=1)


def test_operations_that_cannot_be_run_are_all_listed_before_anything_runs(own_bundle):
    path = own_bundle / "TextEncoder.mlmodelc" / "model.mil"
    text = path.read_text()
    path.unlink()
    path.write_text(text.replace("= softmax(", "= softmux(").replace("= linear(", "= linaer("))

    printed = generate(own_bundle, status=1)

    assert "linaer" in printed
    assert "softmux" in printed


@pytest.mark.parametrize("word, message", [
    ("--steps=0", "steps is '0', expected an integer from 1 to 500"),
    ("--scheduler=dmp", 'did you mean "dpm"?'),
    ("--predictor=gpu", "expected one of auto, coreml, portable"),
    ("--out=a.gif", "out is 'a.gif', expected a path that ends in .png"),
])
def test_a_mistake_in_a_request_ends_with_status_2(own_bundle, word, message):
    assert message in generate(own_bundle, word, status=2)


def test_core_ml_is_missed_clearly(own_bundle):
    if sys.platform == "darwin":
        pytest.skip("it is here")
    assert "Core ML is only on a Mac" in generate(own_bundle, "--predictor=coreml", status=1)


def test_a_picture_that_cannot_be_written_says_where(own_bundle, tmp_path):
    (tmp_path / "file").write_text("x")

    assert "cannot be written" in generate(
        own_bundle, "--steps=1", f"--out={tmp_path / 'file' / 'a.png'}", status=1
    )
