"""Apple's programs: what is refused before anything runs, by the flag that says it."""

import errno
import types

import pytest

import sdbuild.store.store
from sdbuild.base.errors import RecipeError, StoreError
from sdbuild.cli.apple.convert import _lay
from sdbuild.cli.apple.layout import Output
from sdbuild.cli.main import main
from sdbuild.recipe.project import BUILT_IN
from sdbuild.recipe.recipe import load
from sdbuild.store import Record, Store
from tests.tiny_checkpoints import write_checkpoint


@pytest.mark.parametrize(("argv", "wrong"), [
    (["--model-version", "apple/coreml-stable-diffusion-xl-base"],
     "hint: --model-version stabilityai/stable-diffusion-xl-base-1.0"),
    (["--model-version", "apple/coreml-other"], "the repository's card names it"),
    (["--controlnet", "a/b"], "--controlnet names 1, and --controlnet-inputs 0 images"),
    (["--scheduler", "UniPC"], "--scheduler: invalid choice: 'UniPC'"),
])
def test_a_pipeline_that_cannot_be_run_is_refused(argv, wrong, tmp_path, capsys):
    assert main(["pipeline", "--prompt", "a", "-i", str(tmp_path), "-o", str(tmp_path),
                 *argv]) == 2

    assert wrong in capsys.readouterr().err


@pytest.mark.parametrize(("words", "wrong", "hint"), [
    (["torch2coreml", "--convert-unet", "--model-version", ""], "--model-version: source is ''",
     "sdbuild torch2coreml --help lists the flags"),
    (["torch2coreml", "--convert-unet", "--model-version", "MODEL", "--latent-h", "-1"],
     "--latent-h and --latent-w: size is '128x-8'", "sdbuild torch2coreml --help lists the flags"),
    (["torch2coreml", "prediction=x", "--convert-unet", "--model-version", "MODEL"],
     "on the command line: prediction is 'x'", "prediction: the U-Net's output"),
    (["torch2coreml", "--convert-unet", "--model-version", "MODEL", "--convert-controlnet"],
     "--convert-controlnet: no ControlNet is named",
     "name some after it: a repository of the Hub, or a folder"),
    (["torch2coreml", "--convert-unet", "ram=8G", "--model-version", "MODEL"],
     "'ram=8G': a setting between flags", "settings stand before all flags, or after them"),
])
def test_a_value_that_is_not_allowed_is_named_by_its_flag(words, wrong, hint, tmp_path, capsys,
                                                         monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDBUILD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "MODEL").symlink_to(BUILT_IN / "tiny-emoji")

    assert main(words) == 2

    error = capsys.readouterr().err
    assert error.startswith(f"ERROR: {wrong}")
    assert f"hint: {hint}" in error


def test_a_batch_that_no_host_sends_is_named_by_its_flag(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SDBUILD_CACHE", str(tmp_path / "cache"))
    write_checkpoint(tmp_path / "xl", "sdxl")
    capsys.readouterr()  # bars of those who write it

    assert main(["torch2coreml", "--convert-unet", "--unet-batch-one", "--model-version",
                 str(tmp_path / "xl"), "-o", str(tmp_path / "out")]) == 2

    error = capsys.readouterr().err
    assert error.startswith("ERROR: --unet-batch-one: batch=1 for Stable Diffusion XL, expected 2")
    assert "hint: hosts send two samples at a time" in error


def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_runs(tmp_path, capsys,
                                                                           monkeypatch):
    monkeypatch.setenv("SDBUILD_CACHE", str(tmp_path / "cache"))
    assert main(["torch2coreml", "--convert-unet", "--model-version",
                 str(BUILT_IN / "tiny-emoji"), "-o", "/proc/x"]) == 1

    error = capsys.readouterr().err
    assert error.startswith("ERROR: /proc/x: ")
    assert error.endswith("hint: choose another folder with -o DIR\n")
    assert list(Store(tmp_path / "cache").records()) == []


def test_a_disk_that_is_full_has_another_folder_as_hint(store, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "made/unet.mlpackage").mkdir(parents=True)
    (tmp_path / "made/unet.mlpackage/weights").write_text("weights")
    record = store.put(tmp_path / "made", Record(
        key="1" * 32, step="convert:unet", ingredients={}, tree=(), seconds=0, peak_bytes=0,
        made_at="", host=""))
    builder = types.SimpleNamespace(store=store, deliver=lambda step, use: use(record))
    monkeypatch.setattr(sdbuild.store.store, "link_out", full)

    with pytest.raises(StoreError) as raised:
        _lay(builder, "convert:unet", Output(tmp_path / "out"), "unet.mlpackage")

    assert raised.value.hint == "free some space, or choose another folder with -o DIR"
    assert not (tmp_path / "out/unet.mlpackage").exists()


@pytest.mark.parametrize("name", ["mixed-bit-compression-pre-analysis",
                                  "mixed_bit_compression_pre_analysis"])
def test_an_analysis_is_refused_with_what_takes_its_place(name, capsys):
    assert main([name, "--model-version", "a/b", "-o", "x"]) == 2

    assert "hint: sdbuild sweep source=hub:a/b builds several bits" in capsys.readouterr().err


def test_activation_quantization_is_refused_with_what_takes_its_place(capsys):
    assert main(["activation_quantization", "--model-version", "a/b", "-o", "x",
                 "--quantize-pytorch", "--conv-psnr", "38.5"]) == 2

    assert "hint: sdbuild build source=hub:a/b activations=8 quant=none" in capsys.readouterr().err


def test_a_multilingual_projection_is_refused_with_what_can_be_done(capsys):
    """Its file is never opened: TorchScript runs code."""
    assert main(["multilingual_projection", "--input-path", "p.pt", "--output-dir", "x"]) == 2
    assert "p.pt: a multilingual projection is not converted" in capsys.readouterr().err

    with pytest.raises(RecipeError, match="a multilingual projection is not converted") as told:
        load({"model": "tiny-emoji", "components": "unet,multilingual_text_encoder_projection"})
    assert "sdbuild contract checks it" in told.value.hint
