"""Imports of `generate`: few, because with a small model they take longer than the image."""

import subprocess
import sys
from importlib import metadata

from sdbuild.recipe.project import BUILT_IN

CODE = f"""
import sys
from pathlib import Path
import torch
import sdbuild.runtime.generate
from sdbuild.runtime.tokenizers import load, read
from sdbuild.runtime.schedulers import Asked
from sdbuild.runtime.schedulers.diffusers import schedule

load("clip", read(Path({str(BUILT_IN / "tiny-emoji" / "tokenizer")!r})), "!").ids("a fox", 77)
for name in ("dpm", "euler_a", "unipc"):
    schedule(Asked(scheduler=name, config={{"beta_schedule": "scaled_linear"}}, steps=4),
             torch.Generator())
print(*sys.modules)
print(*vars(sys.modules["diffusers.schedulers.scheduling_dpmsolver_multistep"]))
"""


def test_neither_a_compiler_nor_scipy_nor_transformers_is_imported_for_a_picture():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    modules, inside = (set(line.split()) for line in done.stdout.splitlines()[-2:])

    assert modules & {"torch._dynamo", "scipy", "transformers", "coremltools"} == set()
    assert "DPMSolverMultistepScheduler" in inside, "the real class was made"


def test_what_was_kept_away_can_be_imported_afterwards():
    code = CODE + (
        "import torch._dynamo, scipy.stats, diffusers\n"
        "print(diffusers.LMSDiscreteScheduler.__module__)")

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "diffusers.schedulers.scheduling_lms_discrete"


def test_installed_packages_are_not_listed_for_a_picture_and_can_be_afterwards():
    """The listing takes half of the time that diffusers' import takes."""
    code = (
        "from importlib import metadata\n"
        "calls, real = [], metadata.packages_distributions\n"
        "metadata.packages_distributions = lambda: calls.append(1) or real()\n"
        f"{CODE}\n"
        "from diffusers.utils.import_utils import _is_package_available\n"
        "print(len(calls), *_is_package_available('PIL', get_dist_name=True))")

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == f"0 True {metadata.version('pillow')}"


def test_lms_computes_after_another_scheduler_was_made_in_the_same_process():
    code = CODE + (
        "lms = schedule(Asked(scheduler='lms', config={'beta_schedule': 'scaled_linear'}, steps=4),"
        " torch.Generator())\n"
        "sample = lms.step(torch.zeros(1, 4, 2, 2), 0, torch.ones(1, 4, 2, 2))\n"
        "print(float(sample.mean()))")

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert float(done.stdout.splitlines()[-1]) == 1.0  # nothing is taken away where none is noise


WITHOUT_SCIPY = """
import torch
from diffusers.utils import import_utils
import_utils._scipy_available = False
from sdbuild.base.errors import ToolMissing
from sdbuild.bundle.hosts import DIFFUSERS
from sdbuild.bundle.request import Request
from sdbuild.runtime import schedulers
from tests.runtime.test_files import BUNDLE

request = Request(prompt="", negative="", seed=1, steps=4, guidance=1, scheduler="lms", count=1)
try:
    schedulers.schedule(request, BUNDLE, DIFFUSERS, torch.Generator())
except ToolMissing as error:
    print(error)
"""


def test_a_scheduler_that_needs_scipy_says_so_where_there_is_none():
    done = subprocess.run([sys.executable, "-c", WITHOUT_SCIPY], capture_output=True, text=True,
                          check=True, cwd=BUILT_IN.parent)

    assert "scheduler=lms: LMSDiscreteScheduler requires the scipy library" in done.stdout
    assert "hint: pip install scipy" in done.stdout
