"""The rules of the house, as tests: layers, start-up, versions of steps, sizes."""

import ast
import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from sdbuild.plan import STAGES
from sdbuild.step import stage

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sdbuild"
GOLDEN = ROOT / "tests" / "golden" / "step_code.json"
HEAVY = {"numpy", "torch", "coremltools", "diffusers", "transformers", "huggingface_hub", "PIL",
         "google", "safetensors", "fsspec", "s3fs", "paramiko", "httpx"}
CORE = {"errors", "apple", "schedule", "suggestions", "units", "digest", "lock", "checkpoints",
        "family", "fields", "naming", "recipe", "step", "plan", "build", "memory", "cost", "ram",
        "settings", "install", "show", "check", "why", "weight", "tasks", "versions", "printable",
        "cli"}
MAY_IMPORT = {
    "core": {"errors", "parsing", "core", "store", "upkeep", "sharing", "sources", "steps",
             "runtime", "mil"},
    "store": {"errors", "parsing", "digest", "store"},
    "upkeep": {"errors", "parsing", "suggestions", "units", "store", "upkeep"},
    "sharing": {"errors", "parsing", "digest", "suggestions", "units", "store", "sharing"},
    "steps": {"errors", "parsing", "core", "store", "models", "lowering", "mil", "sources",
              "runtime", "steps"},
    "mil": {"errors", "parsing", "mil"},
    "models": {"errors", "parsing", "models", "family", "sources"},
    "lowering": {"errors", "parsing", "lowering", "family", "versions", "mil", "sources"},
    "sources": {"errors", "schedule", "parsing", "sources"},
    "runtime": {"errors", "schedule", "parsing", "runtime", "mil", "recipe"},
}
EXECUTOR = {"bound.py", "execute.py", "planner.py", "sliced.py"}
LOWER_LAYERS = ("lowering", "mil", "models", "sources", "runtime")
ALL_MODULES = sorted(PACKAGE.rglob("*.py"))


def layer(module):
    first = module.split(".")[0]
    return first if first in MAY_IMPORT else "core"


def imports(path, top_level_only=False):
    """The modules that a file imports, with the line of each."""
    tree = ast.parse(path.read_text("utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node.lineno


def module_name(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


@pytest.mark.parametrize("path", ALL_MODULES, ids=module_name)
def test_each_layer_imports_only_what_lies_below_it(path):
    own = layer(module_name(path))
    for name, line in imports(path):
        if not name.startswith("sdbuild."):
            continue
        target = name.removeprefix("sdbuild.")
        allowed = MAY_IMPORT[own] | {"filenames"}
        known = {target, layer(target)} | ({"core"} if target.split(".")[0] in CORE else set())
        assert known & allowed, f"{path}:{line}: {own} imports {name}"


@pytest.mark.parametrize("path", ALL_MODULES, ids=module_name)
def test_the_light_layers_import_nothing_heavy_at_module_level(path):
    if layer(module_name(path)) not in ("core", "steps"):
        pytest.skip("a heavy layer")
    heavy = [n for n, _ in imports(path, top_level_only=True) if n.split(".")[0] in HEAVY]
    assert heavy == []


@pytest.mark.parametrize("path", sorted((PACKAGE / "mil").glob("*.py")), ids=module_name)
def test_torch_is_only_in_the_executor_and_coremltools_is_never_imported(path):
    names = {name.split(".")[0] for name, _ in imports(path)}
    assert "coremltools" not in names
    assert "torch" not in names or path.name in EXECUTOR


def loaded(code):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )
    return {name.split(".")[0] for name in done.stdout.split("\n")[-2].split()}


@pytest.mark.parametrize("command", ["list", "build"])
def test_doit_starts_without_anything_heavy(command, tmp_path):
    """`build` plans every step here, and stops at the checkpoint that is not there."""
    arguments = [command, f"cache={tmp_path}", f"source={tmp_path / 'none'}"]
    found = loaded(
        "sys.argv = ['doit']\nfrom doit.doit_cmd import DoitMain\n"
        f"DoitMain().run({arguments!r})"
    )
    assert found & HEAVY == set()


def code_digest(stage_module):
    """A digest of the syntax of the files that make a stage's bytes, without docstrings."""
    hasher = hashlib.sha256()
    for pattern in stage_module.CODE:
        paths = sorted(PACKAGE.glob(pattern))
        assert paths, f"{stage_module.__name__}: no file matches {pattern}"
        for path in paths:
            tree = ast.parse(path.read_text("utf-8"))
            for node in ast.walk(tree):
                body = getattr(node, "body", None)
                first = body[0] if isinstance(body, list) and body else None
                if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                    body[0] = ast.Pass()
            hasher.update(f"{path.name}\n{ast.unparse(tree)}\n".encode())
    return hasher.hexdigest()[:16]


@pytest.mark.parametrize("kind", [*STAGES, "bundle"])
def test_code_that_makes_artifacts_changes_only_with_the_version_of_its_step(kind, request):
    """If the bytes may differ, raise VERSION; then `pytest --accept` writes the new digest."""
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    module = stage(kind)
    found = {"version": module.VERSION, "code": code_digest(module)}
    if request.config.getoption("--accept"):
        GOLDEN.write_text(json.dumps(golden | {kind: found}, indent=1, sort_keys=True) + "\n")
        return
    assert found == golden.get(kind), (
        f"the code of {kind} changed: raise its VERSION if its bytes may differ, "
        "then run pytest --accept"
    )


def closure(path, seen):
    """The files of the lower layers that a file imports, directly or not."""
    for name, _ in imports(path):
        parts = name.removeprefix("sdbuild.").split(".")
        target = PACKAGE.joinpath(*parts).with_suffix(".py")
        is_lower = parts[0] in LOWER_LAYERS and len(parts) > 1
        if name.startswith("sdbuild.") and is_lower and target not in seen:
            seen.add(target)
            closure(target, seen)
    return seen


@pytest.mark.parametrize("kind", [*STAGES, "bundle"])
def test_a_step_declares_all_the_code_that_makes_its_bytes(kind):
    module = stage(kind)
    declared = {path for pattern in module.CODE for path in PACKAGE.glob(pattern)}

    missing = closure(Path(module.__file__), set()) - declared

    assert not missing, f"{kind}: CODE lacks {sorted(map(module_name, missing))}"


@pytest.mark.parametrize("path", ALL_MODULES, ids=module_name)
def test_modules_and_functions_stay_small(path):
    text = path.read_text("utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= 60, f"{path}:{node.lineno}: {node.name} has {lines} lines"


def test_no_two_test_files_share_a_name():
    """pytest imports them by their names alone."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))

    assert [name for name, count in names.items() if count > 1] == []
