"""`sdbuild`, the program: its grammar, its help, and what it says of mistakes."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from sdbuild.cli.main import SECTIONS, cli, main, names
from sdbuild.recipe.fields import RECIPE_FIELDS, VARIABLES
from tests.test_rules import HEAVY, loaded

ROOT = Path(__file__).parents[2]


def why(tmp_path, capsys, *words):
    """The steps that `why` lists for a checkpoint, with their states."""
    status = main(["why", "--json", "--cache", str(tmp_path), *words])
    assert status == 0
    return json.loads(capsys.readouterr().out)["steps"]


@pytest.mark.parametrize("words", [
    ["palettize:unet", "components=unet", "quant=4"],
    ["--components", "unet", "palettize:unet", "--quant=4"],
    ["--quant", "4", "palettize:unet", "components=unet"],
])
def test_options_and_words_mean_the_same_wherever_they_stand(tmp_path, capsys, words):
    assert [step["step"] for step in why(tmp_path, capsys, *words)] == [
        "download:unet", "trace:unet", "lower:unet", "convert:unet", "palettize:unet"]


def test_the_value_of_an_option_may_look_like_a_word(capsys):
    assert main(["why", "--model", "quant=6"]) == 2

    assert "unknown model 'quant=6'" in capsys.readouterr().err


def test_underscores_and_dashes_are_the_same_in_options(tmp_path, capsys):
    for option in ("--prediction_type=epsilon", "--prediction-type=epsilon"):
        assert why(tmp_path, capsys, option, "download:unet")


def test_attention_may_be_spelled_as_apples_converter_does(tmp_path, capsys):
    plain = why(tmp_path, capsys, "trace:unet", "attention=split_einsum")

    assert why(tmp_path, capsys, "trace:unet", "--attention", "SPLIT_EINSUM") == plain


@pytest.mark.parametrize("words, message", [
    (["biuld"], "there is no command 'biuld'; did you mean \"build\"?"),
    (["convert:unet"], "hint: sdbuild build convert:unet"),
    (["reset-dep"], "hint: doit reset-dep"),
    (["why", "qunat=6"], "unknown variable 'qunat'; did you mean \"quant\"?"),
    (["why", "--qunat=6"], 'unknown option --qunat; did you mean "--quant"?'),
    (["du", "quant=6"], "sdbuild du does not use quant\n\n"
                        "hint: sdbuild du --help lists those that it uses"),
    (["why", "quant=5"], "quant is '5', expected one of none, 1, 2, 3, 4, 6, 8"),
    (["generate", "bundle", "quant=6"], "quant=6: it changes what is built"),
    (["check", "seed=-1"], "hint: seed: the random seed; seed=$RANDOM is another each time"),
    (["check", "control=Canny:a.png:nan"], "expected NAME:IMAGE:SCALE, a scale from 0 to 10"),
    (["sweep", "quant=6"], "sdbuild sweep does not use quant"),
    (["sweep", "prompt=a fox"], "sdbuild sweep does not use prompt"),
    (["sweep", "components=unet"], "sweep: the bundle generates no images to compare"),
    (["sweep", "bits=4,none.json"], "none.json: no such file"),
])
def test_a_usage_error_says_what_may_be_meant(words, message, capsys):
    assert main(words) == 2

    assert message in capsys.readouterr().err


def test_doit_says_that_a_word_is_a_command_of_sdbuild(tmp_path, capsys):
    from sdbuild.cli.dodo import run

    assert run(["run", "why"], {"cache": str(tmp_path)}) == 3
    assert "why is a command of sdbuild\n\nhint: sdbuild why" in capsys.readouterr().err


def test_doits_help_for_a_task_lists_every_variable(tmp_path, capsys):
    from sdbuild.cli.dodo import run

    assert run(["help", "build"], {"cache": str(tmp_path)}) == 0

    printed = capsys.readouterr().out.split()
    assert set(VARIABLES) <= set(printed)


@pytest.mark.parametrize("name", names())
def test_the_help_of_every_command_fits_in_80_columns(name, capsys):
    with pytest.raises(SystemExit) if name == "mil" else contextlib.nullcontext():
        assert main([name, "--help"]) == 0

    printed = capsys.readouterr().out
    assert "sage: sdbuild " + name in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_the_help_lists_every_command_in_a_section(capsys):
    assert main(["--help"]) == 0

    printed = capsys.readouterr().out
    assert sorted(name for section in SECTIONS.values() for name in section) == names()
    assert set(names()) <= set(re.findall(r"^  (\S+)", printed, re.MULTILINE))


def test_the_help_of_build_lists_every_field_of_a_recipe():
    options = {name for param in cli.get_command(click.Context(cli), "build").params
               for name in param.opts}

    assert {f"--{field.name.replace('_', '-')}" for field in RECIPE_FIELDS} <= options


def test_help_and_version_import_nothing_heavy_and_not_doit():
    code = "from sdbuild.cli.main import main\nmain(['--help'])\nmain(['--version'])"

    assert loaded(code) & (HEAVY | {"doit", "platformdirs"}) == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_a_shell_names_the_program(shell, capsys):
    assert main(["completion", shell]) == 0

    assert "_SDBUILD_COMPLETE" in capsys.readouterr().out


@pytest.mark.parametrize("line, found", [
    ("sdbuild bui", "build"), ("sdbuild build --qua", "--quant"),
    ("sdbuild build --scheduler d", "dpm"), ("sdbuild why --model tiny", "tiny-emoji"),
])
def test_commands_options_and_values_are_completed(line, found):
    done = subprocess.run(
        [sys.executable, "-m", "sdbuild"], capture_output=True, text=True, cwd=ROOT,
        env=os.environ | {"_SDBUILD_COMPLETE": "bash_complete", "COMP_WORDS": line,
                          "COMP_CWORD": str(line.count(" "))})

    assert f"plain,{found}" in done.stdout.splitlines()


def test_recipes_lists_the_built_in_ones(capsys):
    assert main(["recipes", "--json"]) == 0

    found = {row["name"]: row for row in json.loads(capsys.readouterr().out)["recipes"]}
    assert found["tiny-emoji"]["size"] == "128x128"
    assert found["sd-1-5"]["source"][0].startswith("hub:")
    assert all(row["is_built_in"] for row in found.values())


def test_a_recipe_that_cannot_be_read_hides_no_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    (tmp_path / "recipes" / "half.toml").write_text("family =\n")
    capsys.readouterr()

    assert main(["recipes"]) == 0

    printed = capsys.readouterr()
    assert "my-model" in printed.out
    assert "sd-2-1-base" in printed.out
    assert "half.toml" in printed.err


def test_export_refuses_to_overwrite(tmp_path, capsys):
    assert main(["export", "download:unet", str(tmp_path), f"cache={tmp_path / 'cache'}"]) == 1

    assert "already exists" in capsys.readouterr().err


def test_export_makes_a_step_and_copies_its_artifact(tmp_path, capsys):
    words = ["download:vae_decoder", str(tmp_path / "out"), f"cache={tmp_path / 'cache'}"]
    assert main(["export", *words]) == 0

    assert "download:vae_decoder" in capsys.readouterr().out
    (weights,) = (tmp_path / "out").rglob("*.safetensors")
    assert os.access(weights, os.W_OK)
    assert weights.stat().st_nlink == 1


@pytest.mark.parametrize("path, part", [
    ("Unet.mlpackage", "net.mlpackage"), ("folder", ""), ("net.mlmodelc", ""),
])
def test_an_exported_package_takes_the_place_of_a_path_that_ends_as_it_does(path, part):
    from sdbuild.cli.commands.export import _only_entry
    from sdbuild.store.record import Entry, Record

    tree = (Entry("net.mlpackage/a", "0" * 32, 1), Entry("net.mlpackage/b", "1" * 32, 1))
    record = Record(key="k", step="convert:unet", ingredients={}, tree=tree, seconds=0,
                    peak_bytes=0, made_at="", host="", facts={})

    assert _only_entry(record, Path(path)) == part


def test_a_word_of_info_that_is_no_task_is_an_error_in_words(capsys):
    assert main(["info", "biuld"]) == 3
    assert 'did you mean "build"?' in capsys.readouterr().err
