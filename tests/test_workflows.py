"""Workflows, scripts, forms and containers, the project's own and those to copy, linted."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "github-actions"
WORKFLOWS = sorted([*EXAMPLES.glob("*.yml"), *(ROOT / ".github" / "workflows").glob("*.yml")])
SCRIPTS = sorted(
    path for folder in (EXAMPLES, ROOT / "scripts", ROOT / ".ci") for path in folder.iterdir()
    if path.is_file() and path.read_bytes().startswith(b"#!/usr/bin/env bash")
)
BIN = Path(sys.executable).parent
RECIPE = "summary = 'x'\n"


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_workflows_have_the_form_that_github_reads():
    done = run(BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)

    assert done.returncode == 0, done.stdout


def test_workflows_pin_actions_ask_for_little_and_put_no_input_into_scripts():
    done = run(BIN / "zizmor", "--offline", "--no-progress", "--persona=pedantic",
               "--min-severity=low", *WORKFLOWS)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_job_ends_in_time(path):
    jobs = yaml.safe_load(path.read_text("utf-8"))["jobs"]

    assert all(0 < job["timeout-minutes"] <= 120 for job in jobs.values())


def test_issue_forms_have_the_form_that_github_reads():
    folder = ROOT / ".github" / "ISSUE_TEMPLATE"
    forms = [path for path in folder.glob("*.yml") if path.name != "config.yml"]
    assert forms
    for schema, files in (("issue-forms", forms), ("issue-config", [folder / "config.yml"])):
        done = run(BIN / "check-jsonschema", "--builtin-schema", f"vendor.github-{schema}", *files)
        assert done.returncode == 0, done.stdout


def test_the_hooks_before_a_commit_run_programs_that_scripts_test_runs():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    tested = (ROOT / "scripts" / "test").read_text("utf-8")

    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        program = hook["entry"].split()[0]
        assert f"\n{program} " in tested or f"\n{program}\n" in tested
        assert hook["language"] == "system"


def test_the_image_copies_only_what_is_there_and_the_container_builds_one_of_its_stages():
    text = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    ignored, *kept = (ROOT / ".dockerignore").read_text("utf-8").split()
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text("utf-8"))

    assert {line.split()[0] for line in lines} <= {
        "FROM", "ARG", "COPY", "RUN", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}
    assert lines[-3].startswith("WORKDIR") and any(line.startswith("USER") for line in lines)
    assert ignored == "**"
    assert all((ROOT / name[1:]).exists() for name in kept if name.startswith("!"))
    stages = re.findall(r"^FROM \S+ AS (\w+)$", text, re.MULTILINE)
    assert container["build"]["target"] in stages
    file = ROOT / ".devcontainer" / container["build"]["dockerfile"]
    assert file.resolve() == ROOT / "Dockerfile"
    assert (ROOT / container["onCreateCommand"]).is_file()


def test_scripts_have_no_faults_that_shellcheck_knows():
    done = run(BIN / "shellcheck", *SCRIPTS)

    assert done.returncode == 0, done.stdout


@pytest.fixture
def keys(tmp_path):
    """The names that `store-key` gives a small project, which a test may change."""
    project = tmp_path / "project"
    for folder in ("sdbuild", "recipes", "examples/github-actions"):
        (project / folder).mkdir(parents=True)
    shutil.copy2(EXAMPLES / "store-key", project / "examples" / "github-actions")
    (project / "sdbuild" / "a.py").write_text("a = 1\n")
    (project / "constraints.txt").write_text("torch==1\n")
    (project / "recipes" / "mine.toml").write_text(RECIPE)

    def keys(*words):
        done = run(project / "examples" / "github-actions" / "store-key", "mine", *words)
        assert done.returncode == 0, done.stderr
        key, head, *nearest, end = done.stdout.splitlines()
        assert (head, end) == ("restore-keys<<END", "END")
        return key.removeprefix("key="), nearest
    keys.project = project
    return keys


def place(key, nearest):
    """Returns the position in a list of prefixes at which a key is found."""
    return next(n for n, prefix in enumerate(nearest) if key.startswith(prefix))


def test_the_same_words_in_another_order_find_the_same_store(keys):
    assert keys("quant=6", "chunk=1") == keys("chunk=1", "quant=6")


@pytest.mark.parametrize("file, expected", [
    ("recipes/mine.toml", 2), ("sdbuild/a.py", 3), ("constraints.txt", 3),
])
def test_a_change_of_recipe_or_code_finds_the_store_from_before(keys, file, expected):
    before, _ = keys()
    path = keys.project / file
    path.write_text(path.read_text() + "# changed\n")

    after, nearest = keys()

    assert after != before
    assert place(before, nearest) == expected


def test_other_words_find_the_store_of_the_same_recipe_first(keys):
    six, _ = keys("quant=6")

    four, nearest = keys("quant=4")

    assert four != six
    assert place(six, nearest) == 1


def test_what_a_failed_run_kept_comes_before_all_others(keys):
    key, nearest = keys()

    assert place(f"{key}-123", nearest) == 0


def test_keys_hold_nothing_that_github_refuses(keys):
    key, _ = keys("lora=a.safetensors:0.8,b.safetensors")

    assert "," not in key
    assert len(key) < 512
