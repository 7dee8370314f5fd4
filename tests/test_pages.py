"""Every command that a page prints can be typed as it is printed."""

import argparse
import ast
import importlib.util
import re
from pathlib import Path

import click
import pytest

from sdbuild.base.errors import SDBuildError
from sdbuild.cli.main import cli, names
from sdbuild.engine.plan import plan
from sdbuild.mil.cli.main import add_mil
from sdbuild.recipe.fields import VARIABLES
from sdbuild.recipe.recipe import load
from sdbuild.recipe.sweep import BITS_FIELD, points
from tests.pages import PAGES, ROOT, mentioned, printed
from tests.test_rules import LAYERS

COMMANDS = list(printed())
TASKS = {"build", "check", "contract", "generate", "report"}
OF_DOIT = {"list", "info", "clean", "forget", "run", "help"}
OF_OTHERS = {"cd", "dask", "docker", "export", "git", "mkdir", "pip", "pipx", "pre-commit",
             "source", "uvx"}
TAKE_STEPS = {"build", "why", "push", "history", "export", "clean", "forget", "info"}
VALUE = re.compile(r"(\w+)=(.*)", re.DOTALL)


def check_steps(words, steps, where):
    """Makes sure that the words of a recipe go together, and that it has these steps.

    The checkpoints of pages are not here, so that none can say which recipe it would get.
    """
    if "source" in words:
        words = {"model": "sd-1-5"} | words
    if words.get("model", "").endswith(".toml"):
        words = {name: value for name, value in words.items() if name != "model"}
    found = set(plan(load(words)).steps)
    known = found | {step.partition(":")[0] for step in found} | TASKS
    assert set(steps) <= known, f"{where}: no such step"


def parsed(words, where):
    """The context of a command of sdbuild, parsed by click."""
    first = next((n for n, word in enumerate(words) if not word.startswith("-")), len(words))
    try:
        group = cli.make_context("sdbuild", list(words), obj=list(words))
        name, command, rest = cli.resolve_command(group, list(words[first:]))
        return name, command.make_context(name, rest, parent=group, obj=rest)
    except click.exceptions.Exit:  # --help, --version
        return None, None
    except click.ClickException as error:
        raise AssertionError(f"{where}: {error.format_message()}") from error


def check_sdbuild(words, where):
    name, context = parsed(words, where)
    if name == "mil" and context.params["words"][0] != "COMMAND":
        parser = argparse.ArgumentParser(exit_on_error=False)
        add_mil(parser)
        parser.parse_args(context.params["words"])
    elif context is not None and "words" in context.params:
        arguments = next((context.params[key] for key in ("tasks", "task", "step", "arguments")
                          if key in context.params), ())
        steps = (arguments,) if isinstance(arguments, str) else arguments
        steps = [step for step in steps if not step.startswith(("-", "*")) and step != "STEP"]
        if name == "sweep" and BITS_FIELD.name in context.params["words"]:
            points(load({}), context.params["words"].pop(BITS_FIELD.name))
        check_steps(context.params["words"], steps if name in TAKE_STEPS else (), where)


def check_doit(words, where):
    values = dict(VALUE.fullmatch(word).groups() for word in words if VALUE.fullmatch(word))
    rest = [word for word in words if not VALUE.fullmatch(word)]
    if rest and rest[0] in OF_DOIT:
        rest.pop(0)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        assert option in ("-n", "--all"), f"{where}: no such option"
        if option == "-n":
            assert int(rest.pop(0)) > 0
    check_steps(values, rest, where)


def check_file(program, where):
    """`python -m module`, `python file`, or a script of ours."""
    if program[0] == "python":
        if program[1] == "-m":
            assert importlib.util.find_spec(program[2]), f"{where}: no such module"
            return
        program = program[1:]
    assert (ROOT / program[0]).is_file(), f"{where}: no such file"


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_printed_command_can_be_typed(command):
    """Those that the page shows to fail may also fail later: at a checkpoint, say."""
    program, *words = command.words
    try:
        if program == "sdbuild":
            check_sdbuild(words, command)
        elif program == "doit":
            check_doit(words, command)
        elif program not in OF_OTHERS:
            check_file(command.words, command)
    except SDBuildError as error:
        assert error.message == command.error


def test_the_pages_print_many_commands():
    assert {"README.md", "docs/store.md", "docs/remote.md"} <= {each.page for each in COMMANDS}
    assert len(COMMANDS) > 30


@pytest.mark.parametrize("words", [
    ["sdbuild", "why", "qunat=4"], ["sdbuild", "gc", "--older"], ["sdbuild", "biuld"],
    ["sdbuild", "build", "convert:unett"], ["sdbuild", "build", "quant=3"],
    ["sdbuild", "mil", "palettise", "a", "b"], ["doit", "biuld"], ["doit", "build", "quant=5"],
    ["scripts/begin"], ["python", "-m", "tests.nothing"],
])
def test_a_command_with_a_mistake_is_found(words):
    program, *rest = words
    with pytest.raises((AssertionError, SDBuildError, argparse.ArgumentError)):
        if program == "sdbuild":
            check_sdbuild(rest, "here")
        elif program == "doit":
            check_doit(rest, "here")
        else:
            check_file(words, "here")


@pytest.mark.parametrize(("page", "words"), sorted(set(mentioned())),
                         ids=lambda value: value if isinstance(value, str) else " ".join(value))
def test_a_command_in_a_sentence_exists(page, words):
    program, *rest = (word for word in words if not word.startswith("-"))
    name = rest[0] if rest else ""
    if name.isupper() or not name or "=" in name or name.isdigit():
        return
    if program == "sdbuild":
        assert name in names(), page
    else:
        assert name.partition(":")[0] in OF_DOIT | TASKS | {
            step.partition(":")[0] for step in plan(load({})).steps}, page


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_within_the_repository_lead_to_files(page):
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            path, _, part = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), target
            if part and file.suffix == ".md":
                assert part in anchors(Path(file)), target


def anchors(page):
    """The anchors of a page's headings, as GitHub names them."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
FOLDERS = ("sdbuild/", "tests/", "docs/", "scripts/", "recipes/")


@pytest.mark.parametrize("path", sorted({
    path for path in re.findall(r"`([\w./-]+)`", CONTRIBUTING)
    if path.startswith(FOLDERS) and "NAME" not in path}))
def test_contributors_are_led_to_files_that_exist(path):
    assert (ROOT / path).exists()


SAID = {page.relative_to(ROOT).as_posix(): page.read_text("utf-8") for page in PAGES
        if page.name != "CHANGELOG.md"}
"""The text of the pages that describe the present state, so without the changelog."""
SOURCES = [path for folder in ("sdbuild", "tests", "benchmarks", "scripts", "examples")
           for path in (ROOT / folder).rglob("*") if path.suffix in ("", ".py", ".yml", ".swift")]


@pytest.mark.parametrize(("page", "path"), sorted({
    (page, path) for page, text in SAID.items()
    for path in re.findall(r"`((?:\w+/)+[\w./-]*)`", text)
    if path.startswith(FOLDERS) and "NAME" not in path}))
def test_files_that_a_page_names_exist(page, path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize(("page", "name"), sorted({
    (page, name) for page, text in SAID.items() for name in re.findall(r"`(\w+\.py)`", text)}))
def test_modules_that_a_page_names_exist(page, name):
    assert name in {path.name for path in SOURCES} | {"dodo.py", "setup.py"}


@pytest.fixture(scope="module")
def names_of_tests():
    return {name for path in SOURCES if path.suffix == ".py" and path.is_relative_to(ROOT / "tests")
            for name in re.findall(r"\bdef (test_\w+)", path.read_text("utf-8"))}


@pytest.mark.parametrize(("page", "name"), sorted({
    (page, name) for page, text in SAID.items() for name in re.findall(r"`(test_\w+)`", text)}))
def test_tests_that_a_page_names_exist(page, name, names_of_tests):
    assert name in names_of_tests


def docstrings():
    for path in sorted((ROOT / "sdbuild").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield path, (ast.get_docstring(node) or "").partition("Source:")[0]


@pytest.mark.parametrize(("path", "name"), sorted({
    (path.relative_to(ROOT).as_posix(), name) for path, text in docstrings()
    for name in re.findall(r"`([\w/]+\.(?:py|md|toml))`", text)}))
def test_files_that_a_docstring_names_exist(path, name):
    """By a path below one of the folders that the module is in. Sources are others' files."""
    folders = (ROOT / path).parents

    assert any((folder / name).exists() for folder in folders) or name in MADE


MADE = {"sdbuild.toml", "json.py"}
"""Files of users."""


@pytest.mark.parametrize(("name", "path"), sorted(set(
    re.findall(r"`(\w+)` (?:of|in) `([\w./]+\.py)`", CONTRIBUTING))))
def test_contributors_are_led_to_names_that_are_defined_there(name, path):
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    targets = [node.targets if isinstance(node, ast.Assign) else [node.target]
               for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    assert name in {getattr(node, "name", None) for node in tree.body} | {
        getattr(target, "id", None) for each in targets for target in each}


def test_the_table_of_layers_is_the_one_that_is_checked():
    rows = re.findall(r"^\| `(\w+)` \|", CONTRIBUTING, re.MULTILINE)

    assert tuple(rows) == LAYERS


def test_the_page_of_variables_has_each_of_them():
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "variables.md").read_text("utf-8"),
                      re.MULTILINE)

    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(VARIABLES)
