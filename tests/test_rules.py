"""The rules of the house, as tests: layers, start-up, versions of steps, sizes."""

import ast
import hashlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sdbuild.engine.stage import STAGES, stage

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sdbuild"
GOLDEN = ROOT / "tests" / "golden" / "step_code.json"
HEAVY = {"numpy", "torch", "coremltools", "diffusers", "transformers", "huggingface_hub", "PIL",
         "google", "safetensors", "numba", "fsspec", "s3fs", "paramiko", "httpx", "dask",
         "distributed"}
LAYERS = ("base", "families", "safetensors", "store", "mil", "checkpoints", "bundle", "recipe",
          "engine", "models", "lowering", "runtime", "quality", "steps", "reports", "publish",
          "cluster", "cli")
"""The folders of the package. Each imports itself and those before it, and nothing else."""

ONLY = {
    "mil": {"base"},  # could be published alone
    "runtime": {"base", "mil", "families", "bundle"},  # does not know how a bundle was made
}
"""Folders that import fewer than those before them."""

MIL_LAYERS = ("ir", "text", "files", "edit", "compress", "compile", "execute", "inspect", "cli")
LIGHT = {"base", "families", "store", "recipe", "engine", "reports", "cli", "steps"}
"""Folders that import nothing heavy before it is used."""

MAKE_BYTES = ("safetensors", "mil", "checkpoints", "bundle", "models", "lowering", "runtime",
              "quality")
ALL_MODULES = sorted(PACKAGE.rglob("*.py"))


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


def allowed(own, layers, only):
    """The folders that code of `own` may import."""
    return only.get(own, set(layers[:layers.index(own)])) | {own}


@pytest.mark.parametrize("path", ALL_MODULES, ids=module_name)
def test_each_folder_imports_only_what_stands_before_it(path):
    parts = module_name(path).split(".")
    if parts in (["__init__"], ["__main__"]):
        pytest.skip("the package itself")
    for name, line in imports(path):
        target = name.split(".")
        if target[0] != "sdbuild" or len(target) == 1:
            continue
        assert target[1] in allowed(parts[0], LAYERS, ONLY), f"{path}:{line}: imports {name}"
        if parts[0] == target[1] == "mil" and len(parts) > 2 and len(target) > 2:
            assert target[2] in allowed(parts[1], MIL_LAYERS, {}), f"{path}:{line}: imports {name}"


@pytest.mark.parametrize("path", ALL_MODULES, ids=module_name)
def test_the_light_folders_import_nothing_heavy_at_module_level(path):
    if module_name(path).split(".")[0] not in LIGHT:
        pytest.skip("a heavy folder")
    heavy = [n for n, _ in imports(path, top_level_only=True) if n.split(".")[0] in HEAVY]
    assert heavy == []


@pytest.mark.parametrize("path", sorted((PACKAGE / "mil").rglob("*.py")), ids=module_name)
def test_torch_is_only_in_the_executor_and_coremltools_is_never_imported(path):
    names = {name.split(".")[0] for name, _ in imports(path)}
    assert "coremltools" not in names
    assert "torch" not in names or module_name(path).startswith("mil.execute.")


def test_every_folder_of_the_package_has_its_place_in_the_table():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(LAYERS) == folders
    assert set(MIL_LAYERS) == {path.parent.name for path in PACKAGE.glob("mil/*/__init__.py")}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=module_name)
def test_every_folder_says_what_lives_there(path):
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


def loaded(code):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )
    return {name.split(".")[0] for name in done.stdout.split("\n")[-2].split()}


@pytest.mark.parametrize("command", ["list", "build"])
def test_doit_starts_without_anything_heavy(command, tmp_path):
    """`build` plans every step here, and stops at the checkpoint that is not there."""
    arguments = [command, f"cache={tmp_path}", "model=tiny-emoji", f"source={tmp_path / 'none'}"]
    found = loaded(
        "sys.argv = ['doit']\nfrom doit.doit_cmd import DoitMain\n"
        f"DoitMain().run({arguments!r})"
    )
    assert found & HEAVY == set()


FOUND_BY_NAME = {
    "models/network.py": "models/*.py", "mil/execute/ops/__init__.py": "mil/execute/ops/*.py",
    "runtime/schedulers/__init__.py": "runtime/schedulers/*.py",
    "runtime/starts.py": "runtime/rng/*.py",
    "runtime/tokenizers/__init__.py": "runtime/tokenizers/*.py",
}
"""Modules that import others by a name that they compute."""


def modules_of(path):
    """The files of ours that a file imports by name, in functions too."""
    for pattern in [FOUND_BY_NAME.get(path.relative_to(PACKAGE).as_posix())]:
        yield from PACKAGE.glob(pattern) if pattern else ()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sdbuild"):
            module = PACKAGE.joinpath(*node.module.split(".")[1:])
            for name in (module, *(module / alias.name for alias in node.names)):
                yield from (f for f in (name.with_suffix(".py"), name / "__init__.py")
                            if f.is_file())


def code_of(path, seen):
    """The files that make a stage's bytes: its own, and those of `MAKE_BYTES` that it imports,
    directly or not."""
    seen.add(path)
    for found in modules_of(path):
        if found.relative_to(PACKAGE).parts[0] in MAKE_BYTES and found not in seen:
            code_of(found, seen)
    return seen


def is_docstring(node):
    """Returns True if a statement is a docstring, of a module, class, function or attribute."""
    return (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str))


def code_digest(found):
    """A digest of the syntax of the files that make a stage's bytes, without docstrings."""
    hasher = hashlib.sha256()
    for path in sorted(code_of(Path(inspect.getfile(type(found))), set())):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(body := getattr(node, "body", None), list):
                node.body = [each for each in body if not is_docstring(each)] or [ast.Pass()]
            if isinstance(node, ast.ImportFrom):
                node.module = ""  # where a name lives changes no byte
        hasher.update(f"{ast.unparse(tree)}\n".encode())
    return hasher.hexdigest()[:16]


@pytest.mark.parametrize("kind", STAGES)
def test_code_that_makes_artifacts_changes_only_with_the_version_of_its_step(kind, request):
    """If the bytes may differ, raise `version`; then `pytest --accept` writes the new digest."""
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    found = {"version": stage(kind).version, "code": code_digest(stage(kind))}
    if request.config.getoption("--accept"):
        GOLDEN.write_text(json.dumps(golden | {kind: found}, indent=1, sort_keys=True) + "\n")
        return
    assert found == golden.get(kind), (
        f"the code of {kind} changed: raise its version if its bytes may differ, "
        "then run pytest --accept"
    )


def parses(node):
    """Whether a node of the syntax reads JSON or TOML with Python's own parsers."""
    if isinstance(node, ast.Attribute):
        return node.attr in ("load", "loads") and getattr(node.value, "id", "") == "json"
    if isinstance(node, ast.ImportFrom):
        return node.module == "tomllib" or (
            node.module == "json" and any(a.name in ("load", "loads") for a in node.names))
    return isinstance(node, ast.Import) and any(a.name == "tomllib" for a in node.names)


@pytest.mark.parametrize("path", ALL_MODULES, ids=module_name)
def test_json_and_toml_are_read_through_one_door(path):
    if module_name(path) == "base.parsing":
        pytest.skip("the door")
    lines = [n.lineno for n in ast.walk(ast.parse(path.read_text("utf-8"))) if parses(n)]
    assert lines == []


@pytest.mark.parametrize("path", ALL_MODULES, ids=module_name)
def test_modules_and_functions_stay_small(path):
    text = path.read_text("utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= 60, f"{path}:{node.lineno}: {node.name} has {lines} lines"


CLOCKS = {"time", "monotonic", "perf_counter", "process_time", "thread_time"}
CLOCKS |= {f"{name}_ns" for name in CLOCKS}
KEEPS_DEADLINES = "waiting.py"
"""Ends tests that hang: its deadlines are far beyond anything that a busy machine needs."""


def reads_clock(node, names=frozenset()):
    """Whether an expression reads a clock, or a name that one was read into."""
    return any(
        (isinstance(part, ast.Call)
         and getattr(part.func, "attr", getattr(part.func, "id", None)) in CLOCKS)
        or (isinstance(part, ast.Name) and part.id in names)
        for part in ast.walk(node))


def timed_asserts(tree):
    """The lines of the asserts that depend on a clock."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        nodes = sorted((node for node in ast.walk(function) if hasattr(node, "lineno")),
                       key=lambda node: (node.lineno, node.col_offset))
        names = set()
        for node in nodes:
            if isinstance(node, ast.Assign) and reads_clock(node.value, names):
                names |= {t.id for t in node.targets if isinstance(t, ast.Name)}
            if isinstance(node, ast.Assert) and reads_clock(node.test, names):
                yield node.lineno


@pytest.mark.parametrize("line", [
    "assert time.monotonic() - start < 5", "assert perf_counter() < start + 5",
    "took = time.perf_counter() - start; assert took < 5",
    "end = time.monotonic_ns(); took = end - start; assert took < 5",
])
def test_an_assert_of_seconds_is_found(line):
    assert list(timed_asserts(ast.parse(f"def test():\n    {line}"))) == [2]


def test_no_test_asserts_how_long_something_takes():
    """A busy machine takes longer: count calls, bytes or requests instead (`counting.py`)."""
    found = [f"{path.relative_to(ROOT)}:{line}" for path in (ROOT / "tests").rglob("*.py")
             if path.name != KEEPS_DEADLINES
             for line in timed_asserts(ast.parse(path.read_text("utf-8")))]

    assert found == []

NOUN_CLAUSE = re.compile(r"(What|How|Where|Which|Who|Whose|When|Why) ")
PRIVATE = re.compile(
    r"\b(told|anew|passed over|held against|given away|takes? away|taken for|nobody|amiss"
    r"|for want of|asked for wrongly|whoever|draws|the like|leave \S+ away|lies in)\b")
"""Words that readers of other projects would have to guess at."""


def documented(path):
    """The functions of a file that are not rules of compatibility, with their docstrings."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
            yield node, ast.get_docstring(node)


@pytest.mark.parametrize("folder", ["sdbuild", "benchmarks", "scripts", "tests"])
def test_no_docstring_begins_with_a_clause(folder):
    """Functions have a verb (Returns, Yields, Writes …), all else a noun, as other projects do."""
    found = [f"{path.relative_to(ROOT)}:{node.lineno}: {node.value.value.splitlines()[0]}"
             for path in sorted((ROOT / folder).rglob("*.py"))
             for node in ast.walk(ast.parse(path.read_text("utf-8")))
             if is_docstring(node) and NOUN_CLAUSE.match(node.value.value)]

    assert found == []


@pytest.mark.parametrize("path", ALL_MODULES, ids=module_name)
def test_a_docstring_begins_with_whether_only_where_a_bool_is_returned(path):
    found = [f"{node.lineno}: {node.name}" for node, text in documented(path)
             if text.startswith("Whether ") and node.returns is not None
             and not re.match(r"bool\b|TypeGuard\b", ast.unparse(node.returns))]

    assert found == []


def messages(path):
    """The texts of a file that are no docstrings and have a space: messages, hints, help."""
    tree = ast.parse(path.read_text("utf-8"))
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) \
                and " " in node.value and id(node) not in alone:
            yield node


@pytest.mark.parametrize("path", ALL_MODULES, ids=module_name)
def test_messages_use_the_words_of_other_tools(path):
    found = [f"{node.lineno}: {node.value}" for node in messages(path)
             if PRIVATE.search(node.value)]

    assert found == []
