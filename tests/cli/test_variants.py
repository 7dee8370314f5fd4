"""`--matrix`: a command for each variant, and the report at the end."""

import json
import subprocess

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


def test_the_words_of_a_variant_have_all_that_the_command_line_says(folder, capsys):
    """Expected: the places that the command itself gives each variant."""
    given = ("cache=store", "ram=8G", "bundle=dist", "out=a.png", "image=fox.png")
    assert main(["matrix", "--json", "--matrix", "quant=4,6", *given]) == 0

    found = json.loads(capsys.readouterr().out)["include"]
    for name, each in zip(NAMES, found, strict=True):
        assert {"cache": "store", "ram": "8G", "image": "fox.png", "bundle": f"dist/{name}",
                "out": f"a-{name}.png"}.items() <= each.items()
        assert set(each["words"].split()) == {
            f"{field}={value}" for field, value in each.items() if field not in ("name", "words")}


def test_xargs_reads_the_words_as_they_were_given(folder, capsys):
    prompt = "it's a \"red\" fox \\ $HOME `id` *"
    assert main(["matrix", "--json", "--matrix", "quant=4,6", f"prompt={prompt}"]) == 0

    words = json.loads(capsys.readouterr().out)["include"][0]["words"]
    read = subprocess.run(["xargs", "printf", "%s\n"], input=words, capture_output=True, text=True,
                          check=True).stdout.splitlines()
    assert set(read) == {f"prompt={prompt}", "quant=4"}


@pytest.mark.parametrize("value", ["a fox\nin snow", "a fox\x1b[2J"])
@pytest.mark.parametrize("options", [["--json"], []])
def test_a_value_that_no_line_of_words_holds_is_refused(options, value, folder, capsys):
    assert main(["matrix", *options, "--matrix", "quant=4,6", f"prompt={value}"]) == 2

    printed = capsys.readouterr()
    assert "a line of words has no line breaks" in printed.out + printed.err


def test_why_ends_with_what_all_variants_take_together(folder, capsys):
    """Steps of one key count once: expected from the lists of the variants."""
    assert main(["build", "--matrix", "quant=4,6", "download:resources"]) == 0
    capsys.readouterr()

    assert main(["why", "--matrix", "quant=4,6"]) == 0
    *_, shared, running, written = capsys.readouterr().out.splitlines()
    found = printed(capsys, "why", "--matrix", "quant=4,6")

    lists = [[step for step in each["output"]["steps"] if step["step"] != "build"]
             for each in found["variants"]]
    own = sum(step["step"].startswith(("palettize", "chunk", "compile", "bundle"))
              for step in lists[0])
    twice = sum(map(len, lists)) - found["total"]["distinct"]
    assert shared == (f"{sum(map(len, lists))} steps of all variants, "
                      f"{found['total']['distinct']} without repetitions")
    assert 0 < twice <= len(lists[0]) - own + 3  # what is not palettized is shared to its end
    would_run = {(step["step"], tuple(step["causes"])) for steps in lists for step in steps
                 if step["state"] == "would run"}
    assert found["total"]["running"] >= len({name for name, _ in would_run})
    assert running.startswith(f"{found['total']['running']} steps would run")
    assert found["total"]["sizeless"] == found["total"]["running"]
    assert written == "how many bytes would be written is unknown: nothing like it ran here"


@pytest.mark.parametrize("command", ["build", "report"])
def test_a_matrix_with_a_bundle_that_no_host_can_use_is_refused_before_anything_runs(
    command, folder, capsys,
):
    words = ("model=tiny-emoji-control", "--matrix", "batch=1,2")
    assert main([command, *words]) == 2

    error = capsys.readouterr().err
    assert "--matrix: tiny-emoji-control-128x128-original-" in error
    assert "batches of 1" in error
    assert "hint: exclude leaves combinations out" in error
    assert not (folder / "cache" / "records").exists()

    assert main(["matrix", *words]) == 0  # steps of it may be built all the same
    assert "warning: tiny-emoji-control-128x128" in capsys.readouterr().err


@pytest.mark.parametrize(("axis", "status"), [("chunk=1,2", 2), ("target=iOS16,iOS17", 2)])
def test_variants_that_would_be_published_in_one_folder_are_refused(axis, status, folder, capsys):
    """Each would replace the one before it."""
    words = ["publish", "owner/name", "licence=mit", "--matrix", "quant=4", "--matrix", axis]
    assert main(words) == status

    assert "would be published in one folder" in capsys.readouterr().err
    assert not (folder / "cache" / "records").exists()


@pytest.mark.parametrize("command", ["build", "why", "generate", "publish"])
def test_a_bundle_that_no_host_can_use_is_refused_before_anything_runs(command, folder, capsys):
    more = ["owner/name", "licence=mit"] if command == "publish" else []
    assert main([command, *more, "components=unet"]) == 1

    error = capsys.readouterr().err
    assert "hosts cannot use the bundle of this recipe:" in error
    assert "TextEncoder.mlmodelc: found nothing, expected the model" in error
    assert list(Store(folder / "cache").records()) == []


@pytest.mark.parametrize(("command", "place", "hint"), [
    ("build", "bundle=/proc/x/y", "bundle=FOLDER"), ("generate", "out=/proc/x.png", "out=FILE"),
])
def test_a_place_that_cannot_be_written_to_is_refused_before_anything_runs(
    command, place, hint, folder, capsys,
):
    assert main([command, place]) == 1

    error = capsys.readouterr().err
    assert error.startswith(f"ERROR: {place.partition('=')[2]}: ")
    assert error.endswith(f"hint: choose another location with {hint}\n")
    assert list(Store(folder / "cache").records()) == []


def test_single_steps_of_such_a_bundle_can_be_built(folder, capsys):
    assert main(["build", "components=unet", "download:resources"]) == 0


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
    (["generate", "--matrix", "seed=1,2"], "seed is not a field that a matrix can vary"),
    (["generate", "--matrix", "prompt=a cat, red"], "the recipe has no [matrix]"),
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
