"""`--matrix`: a command for each variant of a matrix or a catalogue, one after the other.

    @as_command()
    @for_each_variant
    @recipe_variables()
    @json_option
    def command(words, is_json): ...

The command itself knows of one bundle. Without `--matrix` it runs as it is; with it once for each
variant, with that one's variables. What variants share is made by the first of them, for the store
has it then.
"""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdbuild.base.errors import RecipeError, SDBuildError
from sdbuild.base.parsing import Malformed, json_object, shown
from sdbuild.base.units import counted
from sdbuild.cli.elsewhere import (
    estimate_option,
    estimated,
    made_elsewhere,
    on_option,
    total_of,
)
from sdbuild.cli.options import OptionalValue, print_json
from sdbuild.recipe.fields import VARIABLES, Field

if TYPE_CHECKING:
    from sdbuild.cluster.estimate import Estimate
    from sdbuild.recipe.catalogue import Variant
    from sdbuild.recipe.project import Project
    from sdbuild.reports.why import Total

_MATRIX = "--matrix"
_TASKS = {"check": "check"}
"""Tasks that a command needs besides the bundle, by command."""


def _is_of_matrix(word: str) -> bool:
    """Whether a word is a value of `--matrix` rather than a variable of the command.

    So is a list for a field that takes none: the error then names the fields that a matrix varies.
    """
    from sdbuild.recipe.matrix import FIELDS

    name, is_variable, value = word.partition("=")
    name = name.replace("-", "_")
    if not is_variable:
        return word.endswith(".toml")
    return name in FIELDS or name == "model" or word.endswith(".toml") or (
        name in VARIABLES and "," in value and not _is_value(VARIABLES[name], value))


def _is_value(field: Field, word: str) -> bool:
    try:
        field.parse(word)
    except ValueError:
        return False
    return True


matrix_option = click.option(
    _MATRIX, multiple=True, cls=OptionalValue, takes=_is_of_matrix,
    metavar="[NAME=VALUE,…]", help="Build every combination of values, repeatable; a catalogue "
    "with FILE.toml; without a value the project's catalogue.toml, or the recipe's own [matrix].")
only_option = click.option(
    "--only", multiple=True, metavar="VARIANT",
    help="Of a matrix only the variants of this name, or pattern.")


def for_each_variant(function: Callable[..., int]) -> Callable[..., int]:
    """Adds `--matrix` to a command, which then runs for each variant; and `--on`."""
    name = function.__module__.rpartition(".")[2]

    @functools.wraps(function)
    def run(
        *, matrix: tuple[str, ...], only: tuple[str, ...], words: dict[str, str], is_json: bool,
        on: str | None = None, **options: Any,
    ) -> int:
        if not matrix and not only and on is None:
            return function(words=words, is_json=is_json, **options)
        _refuse_finished(options)
        variants = found_variants(words, matrix, only)
        tasks = options.get("tasks") or (options.get("task") or _TASKS.get(name, "build"),)
        if matrix or only:
            expect_possible(variants, tasks)
        if name == "publish":
            from sdbuild.cli.publishing import expect_apart

            expect_apart(variants)
        failed: dict[str, SDBuildError] = {}
        whole: Estimate | Total | None = None
        if on is not None and name == "why":
            whole = estimated(on, variants, tasks)
        elif on is not None:
            with redirect_stdout(sys.stderr if is_json else sys.stdout):
                failed = made_elsewhere(on, variants, words, tasks, options.get("jobs"))
        outcomes = run_each(variants, function, options, failed, is_json=is_json)
        if name == "why" and whole is None:
            whole = total_of(variants, tasks, click.get_current_context().meta)
        if is_json:
            of_all = {} if whole is None else {"cluster" if on else "total": asdict(whole)}
            print_json(variants=[outcome.as_json() for outcome in outcomes], **of_all)
        else:
            lines = [*summary(outcomes), *([] if whole is None else [str(whole)])]
            click.echo("\n".join(lines), err=any(o.status for o in outcomes))
        return 1 if any(outcome.status for outcome in outcomes) else 0

    takes_matrix = only_option(matrix_option(run))
    return (estimate_option if name == "why" else on_option)(takes_matrix)


def found_variants(
    words: Mapping[str, str], asked: Sequence[str], only: Sequence[str]
) -> list[Variant]:
    """Returns the variants that a command line asks for, those that share the most side by side.

    Raises:
        RecipeError: a value that is not allowed, two variants of one name, or none at all.
    """
    from sdbuild.engine.graph import graph, in_build_order
    from sdbuild.engine.plan import plan
    from sdbuild.recipe.catalogue import Asked, Variant, variants
    from sdbuild.recipe.project import Project
    from sdbuild.recipe.recipe import load
    from sdbuild.recipe.settings import store_folder
    from sdbuild.store import Store
    from sdbuild.store.json_cache import Notes

    facts = Notes(Store(store_folder(dict(words))), "hub")
    if not asked and not only:
        recipe = load(words, Project.here(), facts)
        return [Variant(name=recipe.variant, words=words, recipe=recipe)]
    found = {each.name: each
             for each in variants(words, Asked.of(asked), only, Project.here(), facts)}
    plans = {name: plan(each.recipe) for name, each in found.items() if each.recipe is not None}
    order = in_build_order(graph(plans, lambda each: ("bundle",)))
    return [*(found[name] for name in order), *(v for v in found.values() if v.error)]


def impossible(
    variants: Sequence[Variant], tasks: Sequence[str]
) -> Iterator[tuple[Variant, SDBuildError]]:
    """Yields the variants of which a task would fail for what the recipe alone says, and why."""
    from sdbuild.engine.plan import plan
    from sdbuild.reports.why import steps_of

    for variant in variants:
        if variant.recipe is None:
            continue
        found = plan(variant.recipe)
        try:
            steps = [step for task in tasks for step in steps_of(task, found)]
        except RecipeError:  # no such task: the command says so
            continue
        try:
            found.expect(steps)
        except SDBuildError as error:
            yield variant, error


def expect_possible(variants: Sequence[Variant], tasks: Sequence[str]) -> None:
    """Makes sure that no task of a variant would fail for what the recipe alone says.

    Raises:
        RecipeError: names the first that would.
    """
    for variant, error in impossible(variants, tasks):
        raise RecipeError(f"--matrix: {variant.name}: {error.message}",
                          hint=f"exclude leaves combinations out; {error.hint}")


def _refuse_finished(options: Mapping[str, Any]) -> None:
    """Refuses a matrix of a bundle that is finished.

    Raises:
        RecipeError: the command line names one.
    """
    if options.get("bundle") is not None:
        raise RecipeError(f"{_MATRIX}: {shown(str(options['bundle']))} is one bundle",
                          hint="omit it, or --matrix")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of the command for one variant: its status, its JSON, and the error if any."""

    variant: Variant
    status: int
    output: Mapping[str, Any]
    error: SDBuildError | None

    def as_json(self) -> dict[str, Any]:
        """Returns it as it is printed."""
        found = {"name": self.variant.name, "variables": self.variant.row, "status": self.status}
        error = {} if self.error is None else {"error": {
            "type": type(self.error).__name__, "message": self.error.message,
            "hint": self.error.hint}}
        return found | {"output": dict(self.output)} | error


def run_each(
    variants: Sequence[Variant], function: Callable[..., int], options: Mapping[str, Any],
    failed: Mapping[str, SDBuildError], *, is_json: bool,
) -> list[Outcome]:
    """Runs a command for each variant, and says which one.

    Args:
        failed: the errors of those that are not run, by name.
    """
    outcomes = []
    for number, variant in enumerate(variants, 1):
        if not is_json:
            click.echo(f"== {number}/{len(variants)} {variant.name}")
        error = variant.error or failed.get(variant.name)
        outcomes.append(_outcome(variant, error, is_json, function, options))
    return outcomes


def _outcome(
    variant: Variant, error: SDBuildError | None, is_json: bool, function: Callable[..., int],
    options: Mapping[str, Any],
) -> Outcome:
    """Runs the command for one variant; its errors end nothing else."""
    from sdbuild.cli.api import FAILURES

    failures: list[SDBuildError] = []
    token = FAILURES.set(failures)
    printed = io.StringIO()
    status = 1
    try:
        if error is not None:
            raise error
        with redirect_stdout(printed if is_json else sys.stdout):
            status = function(words=apart(variant), is_json=is_json, **options)
    except SDBuildError as found:
        failures.append(found)
        if not is_json:
            click.echo(f"ERROR: {found}", err=True)
    finally:
        FAILURES.reset(token)
    return Outcome(variant=variant, status=status, output=_output(printed.getvalue()),
                    error=failures[0] if failures else None)


def _output(text: str) -> dict[str, Any]:
    try:
        return json_object(text, "the command's output", Malformed, has_infinities=True)
    except Malformed:
        return {}


def apart(variant: Variant) -> dict[str, str]:
    """Returns the variables of one variant, in whose places no other puts anything."""
    from sdbuild.recipe.project import Project

    project, words = Project.here(), dict(variant.words)
    if project.path(VARIABLES["out"], words) is None:
        words["out"] = str(Path("images", "image.png"))
    return words | _own_places(replace(variant, words=words), project)


def own_words(variant: Variant) -> dict[str, str]:
    """Returns all variables of a variant, for a command line of its own: first those that decide
    what it is; where a place is given, one that no other variant has."""
    from sdbuild.cli.format import relative
    from sdbuild.recipe.project import Project

    words = variant.row | dict(variant.words)
    if variant.recipe is None:
        return words
    places = _own_places(variant, Project.here())
    return words | {name: relative(Path(place)) for name, place in places.items()}


def _own_places(variant: Variant, project: Project) -> dict[str, str]:
    """Returns the places that are given, each with the variant's name in it."""
    found = {}
    for name in ("bundle", "trace", "out", "report"):
        place = project.path(VARIABLES[name], variant.words)
        if place is not None:
            found[name] = str(place / variant.name if name in ("bundle", "trace")
                              else place.with_stem(f"{place.stem}-{variant.name}"))
    return found


def summary(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yields how many variants are done, and each that is not with its error."""
    failed = [outcome for outcome in outcomes if outcome.status]
    yield f"{counted(len(outcomes), 'variant')}: {len(outcomes) - len(failed)} done" + (
        f", {len(failed)} failed" if failed else "")
    for outcome in failed:
        said = str(outcome.error) if outcome.error else f"ended with status {outcome.status}"
        yield f"ERROR in {outcome.variant.name}:\n" + said
