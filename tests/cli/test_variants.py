"""`--matrix`: a command for each variant, and the report at the end."""

import json

import pytest

from sdbuild.cli.main import main
from sdbuild.recipe.project import BUILT_IN
from sdbuild.store import Store

NAMES = ["tiny-emoji-128x128-original-4bit-2chunks-iOS16",
         "tiny-emoji-128x128-original-6bit-2chunks-iOS16"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with a store of its own, without a project."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDBUILD_CACHE", str(tmp_path / "cache"))
    return tmp_path


def printed(capsys, *words, status=0):
    assert main([*words, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_what_variants_share_is_made_once(folder, capsys):
    found = printed(capsys, "build", "--matrix", "quant=4,6", "download:resources", "download:unet")

    assert [each["name"] for each in found["variants"]] == NAMES
    assert [[len(each["output"][what]) for what in ("ran", "reused")]
            for each in found["variants"]] == [[2, 0], [0, 2]]
    assert len(list(Store(folder / "cache").records())) == 2


def test_a_variant_that_fails_stops_no_other_and_is_reported_at_the_end(folder, capsys):
    (folder / "catalogue.toml").write_text(
        f'[[recipe]]\nmodel = "tiny-emoji"\nsource = "none"\n'
        f'[[recipe]]\nmodel = "tiny-emoji"\nsource = "{BUILT_IN / "tiny-emoji"}"\n')

    assert main(["build", "--matrix", "catalogue.toml", "download:resources"]) == 1

    out, err = capsys.readouterr()
    assert out.index("== 1/2 tiny-emoji-none-") < out.index("== 2/2 tiny-emoji-tiny-emoji-")
    assert "1 step ran" in out
    summary = err[err.index("2 variants: 1 done, 1 failed"):]
    assert "ERROR in tiny-emoji-none-128x128" in summary
    assert f"{folder}/none: " in summary
    assert "hint: " in summary

    first, second = printed(capsys, "build", "--matrix", "catalogue.toml", "download:resources",
                            status=1)["variants"]
    assert (first["status"], second["status"]) == (1, 0)
    assert first["error"]["type"] == "SourceError"
    assert second["output"]["reused"]


def test_why_tells_what_a_cluster_would_run_and_asks_none(folder, capsys):
    pytest.importorskip("distributed")
    words = ("why", "--matrix", "quant=4,6", "--on", "tcp://127.0.0.1:1")
    found = printed(capsys, *words)
    assert main(words) == 0
    last = capsys.readouterr().out.splitlines()[-2:]

    steps = sum(len(each["output"]["steps"]) - 1 for each in found["variants"])  # less `build`
    assert found["cluster"]["steps"] == steps > found["cluster"]["tasks"]
    assert last[0].startswith(f"on a cluster: {steps} steps of all variants are "
                              f"{found['cluster']['tasks']} tasks")
    assert last[1].startswith("uploads: about ")
    assert main([*words[:-1], "tcp://10.0.0.3:1"]) == 2


def test_every_variant_has_places_of_its_own(folder, capsys):
    found = printed(capsys, "build", "--matrix", "quant=4,6", "download:resources", "bundle=dist")

    assert [each["output"]["bundle"] for each in found["variants"]] == [
        str(folder / "dist" / name) for name in NAMES]


def test_github_reads_the_variants_from_one_line(folder, capsys):
    assert main(["matrix", "--json", "--matrix", "quant=4,6", "lora=a b.safetensors:0.5"]) == 0

    line, _, rest = capsys.readouterr().out.partition("\n")
    first, _ = json.loads(line)["include"]
    assert rest == ""
    assert json.loads(line).keys() == {"include"}
    assert first["quant"] == "4"
    assert first["words"] == "'lora=a b.safetensors:0.5' quant=4"
    assert first["name"].startswith("tiny-emoji-lora-a_b_0.5-128x128-original-4bit")


def test_more_variants_than_github_takes_are_refused_with_what_helps(folder, capsys):
    sizes = ",".join(str(side) for side in range(64, 64 + 8 * 129, 8))

    assert main(["matrix", "--json", "--matrix", "quant=4,6", "--matrix", f"size={sizes}"]) == 2
    assert "258 variants, and GitHub takes 256\", \"hint\": \"--only" in \
        capsys.readouterr().out.replace("\n", "").replace("      ", "").replace(",    ", ", ")


@pytest.mark.parametrize("words", [
    ["--matrix", "quant=4,6", "model=tiny-emoji"], ["model=tiny-emoji", "--matrix=quant=4,6"],
    ["--model", "tiny-emoji", "--matrix", "--matrix", "quant=4,6"],
])
def test_matrix_takes_the_list_after_it_and_nothing_else(words, folder, capsys):
    assert main(["matrix", *words]) == 0
    assert capsys.readouterr().out.splitlines()[::2] == NAMES


def test_a_variant_that_cannot_be_read_is_named_after_the_others(folder, capsys):
    assert main(["matrix", "--matrix", "source=builtin:tiny-emoji,nofolder"]) == 1

    said = capsys.readouterr()
    assert [line.strip() for line in said.out.splitlines()][1:] == ["source=builtin:tiny-emoji"]
    assert said.err.startswith(f"ERROR: source=nofolder: {folder / 'nofolder'}: there is no such")


@pytest.mark.parametrize(("words", "message"), [
    (["contract", "--matrix", "quant=4,6", "folder"], "--matrix: 'folder' is one bundle"),
    (["build", "--matrix"], "the recipe has no [matrix], and no values are given"),
    (["build", "--only", "x"], "the recipe has no [matrix]"),
    (["build", "matrix=quant"], "unknown variable 'matrix'"),
    (["du", "--matrix"], "unknown option --matrix"),
    (["matrix", "--matrix", "quant=4,6", "quant=6"], "--matrix quant: quant='6' is given too"),
    (["reproduce", "./bundle"], "'./bundle': a path, expected hub:owner/name"),
])
def test_a_mistake_ends_before_anything_runs(words, message, folder, capsys):
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "cache" / "records").exists()
