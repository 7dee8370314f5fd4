"""The examples of CI and clusters: linted, and their script parts run on the built store."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
BIN = Path(sys.executable).parent
WORDS = {"MODEL": "tiny-emoji", "MATRIX": "quant=6"}
SHELL = sorted([EXAMPLES / "github-actions" / "plan", EXAMPLES / "github-actions" / "variant",
                EXAMPLES / "slurm" / "variants.sbatch"])


def run(command, folder, status=0, **environment):
    """Runs a script or the lines of one, as its runner would; what it printed."""
    words = ["bash", "-euo", "pipefail", "-c", command] if isinstance(command, str) else command
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"} | environment)
    printed = done.stdout + done.stderr
    assert done.returncode == status, printed
    return printed


@pytest.mark.parametrize(("schema", "path"), [
    ("github-actions", "action.yml"), ("gitlab-ci", "examples/gitlab/gitlab-ci.yml"),
])
def test_a_file_has_the_form_that_its_service_reads(schema, path):
    transform = ["--data-transform", "gitlab-ci"] if schema == "gitlab-ci" else []

    run([BIN / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", *transform, ROOT / path],
        ROOT)


def test_the_action_puts_no_input_into_scripts_and_pins_what_it_uses():
    run([BIN / "zizmor", "--offline", "--no-progress", "--persona=pedantic", "--min-severity=low",
         ROOT / "action.yml"], ROOT)


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_scripts_have_no_faults_that_shellcheck_knows(path):
    run([BIN / "shellcheck", path], ROOT)


def test_the_image_for_jobs_copies_the_project_and_runs_as_a_user():
    text = (EXAMPLES / "docker" / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]

    assert {line.split()[0] for line in lines} <= {"FROM", "ARG", "COPY", "RUN", "USER", "ENV",
                                                   "WORKDIR", "CMD"}
    assert [line for line in lines if line.startswith("USER")] == ["USER runner"]
    assert 'CMD ["bash"]' in lines


def test_the_plan_is_what_github_reads_as_a_matrix(tmp_path):
    printed = run([EXAMPLES / "github-actions" / "plan", "model=tiny-emoji", "--matrix",
                   "quant=4,6"], tmp_path)

    (line,) = printed.splitlines()
    found = json.loads(line.removeprefix("variants="))["include"]
    assert [each["quant"] for each in found] == ["4", "6"]
    assert all("quant=" in each["words"] for each in found)


def steps_that_ran(printed):
    return re.findall(r"^\.  (\w+:\w+)", printed, re.MULTILINE)


@pytest.mark.slow
def test_a_variant_of_the_workflow_is_built_checked_and_published(project, hub, tmp_path):
    printed = run([EXAMPLES / "github-actions" / "variant", "model=tiny-emoji"], tmp_path,
                  WORDS="quant=6", REPOSITORY="me/coreml-tiny", HF_TOKEN=hub.token,
                  SDBUILD_CACHE=str(project.cache))

    assert steps_that_ran(printed) == []
    assert "rules: 0 errors" in printed
    assert "original/128x128/compiled/vocab.json" in \
        hub.repositories["me/coreml-tiny"].commits[
            hub.repositories["me/coreml-tiny"].branches["main"]]


@pytest.mark.slow
def test_a_task_of_the_slurm_array_builds_its_variant(project, tmp_path):
    printed = run([EXAMPLES / "slurm" / "variants.sbatch", "model=tiny-emoji", "--matrix",
                   "quant=6"], tmp_path, SLURM_ARRAY_TASK_ID="0",
                  SDBUILD_CACHE=str(project.cache))

    assert steps_that_ran(printed) == []
    assert list((tmp_path / "bundles").glob("tiny-emoji*6bit*/manifest.json"))


@pytest.mark.slow
def test_an_index_of_the_kubernetes_job_builds_its_variant(project, tmp_path):
    job = yaml.safe_load((EXAMPLES / "kubernetes" / "variants.yaml").read_text("utf-8"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert job["spec"]["completionMode"] == "Indexed"

    printed = run([*container["command"], *container["args"]], tmp_path, JOB_COMPLETION_INDEX="0",
                  SDBUILD_CACHE=str(project.cache), **WORDS)

    assert steps_that_ran(printed) == []
    assert list((tmp_path / "bundles").glob("tiny-emoji*6bit*/manifest.json"))


@pytest.mark.slow
def test_the_jobs_of_gitlab_build_and_publish(project, hub, tmp_path):
    jobs = yaml.safe_load((EXAMPLES / "gitlab" / "gitlab-ci.yml").read_text("utf-8"))
    given = {"SDBUILD_MODEL": "tiny-emoji", "QUANT": "6", "SDBUILD_CACHE": str(project.cache),
             "HF_REPOSITORY": "me/coreml-tiny", "HF_TOKEN": hub.token}

    for name in ("build", "publish"):
        run("\n".join(jobs[name]["script"]), tmp_path, **given)

    assert (tmp_path / "bundles" / "6" / "manifest.json").is_file()
    assert "me/coreml-tiny" in hub.repositories
