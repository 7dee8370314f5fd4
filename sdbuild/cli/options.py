"""The grammar of every command: each setting both as `--quant 6` and as `quant=6`.

A command's options come from the fields of recipes (`VARIABLES`), so that a new field is an option
everywhere. What was given reaches the command as one mapping, `words`.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdbuild.base.errors import RecipeError, SDBuildError, StoreError
from sdbuild.base.parsing import shown
from sdbuild.base.paths import outside_path
from sdbuild.base.suggestions import did_you_mean
from sdbuild.recipe.fields import (
    AGAINST_FIELD,
    DRAW_FIELDS,
    INPUT_FIELDS,
    MODEL_FIELD,
    PREVIEWS_FIELD,
    RECIPE_FIELDS,
    REQUIRED,
    SETTING_FIELDS,
    VARIABLES,
    VARIANT_FIELD,
    Field,
)
from sdbuild.recipe.project import Project

if TYPE_CHECKING:
    from sdbuild.store import Store

SCHEMA = 1
"""The version of what commands print as JSON (`docs/json.md`)."""

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 80}
_WORD = re.compile(r"([A-Za-z_][\w-]*)=(.*)", re.DOTALL)
_QUOTES = "\u201c\u201d\u201e\u2018\u2019"
_DASH = re.compile(r"[\u2010-\u2015\u2212]+(?=[A-Za-z])")
_QUOTE = re.compile(f"[{_QUOTES}]+")
"""Dashes and quotes as web pages and text processors set them."""

_WIDEST = 22
"""Characters of the values that stand beside an option's name; more stand in its help."""

_GROUPS = (("Recipe (default: the recipe's own values)", (MODEL_FIELD, *RECIPE_FIELDS)),
           ("Image", (*DRAW_FIELDS, *INPUT_FIELDS, VARIANT_FIELD, PREVIEWS_FIELD, AGAINST_FIELD)),
           ("Settings", SETTING_FIELDS))

OF_IMAGES = frozenset(field.name for field in _GROUPS[1][1])
"""The names of variables that only images depend on."""


class _Value(click.ParamType):
    """The text of a field, which is parsed where all sources of settings are."""

    def __init__(self, field: Field) -> None:
        self.name = field.name
        self._field = field

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[Any]:
        """Returns the values that begin with what is typed; else files, except for the recipe's
        name."""
        from click.shell_completion import CompletionItem

        known: Sequence[str] = self._field.choices
        if self._field is MODEL_FIELD:
            with contextlib.suppress(SDBuildError):  # a broken project completes nothing
                known = Project.here().names()
        found = [CompletionItem(word) for word in known if word.startswith(incomplete)]
        is_file = self._field.unit.startswith(("FILE", "FOLDER", "LOCATION", "RECIPE"))
        return found or ([CompletionItem(incomplete, type="file")] if is_file else [])


class OutsidePath(click.ParamType):
    """A path on the command line; what is there is checked by its user."""

    name = "path"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path:
        """Returns the path.

        Raises:
            RecipeError: nothing can have it, or it cannot be looked up.
        """
        return outside_path(value, param.make_metavar(ctx) if param and ctx else self.name)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[Any]:
        """Files."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="file")]


class Variable(click.Option):
    """An option for a field, in a group of the help text, or left out of that."""

    def __init__(self, field: Field, group: str, is_shown: bool) -> None:
        values = "|".join(field.choices)
        is_short = field.choices and len(values) <= _WIDEST
        what = field.meaning if is_short or not field.choices \
            else f"{field.meaning}: {', '.join(field.choices)}"
        default = None if field.default is REQUIRED else field.default
        default = ",".join(default) if isinstance(default, list) else default
        super().__init__(
            [f"--{field.name.replace('_', '-')}", f"variable_{field.name}"], type=_Value(field),
            help=what + (f"  [default: {default}]" if default not in (None, "") else ""),
            metavar=values if is_short else "NAME" if field.choices else field.unit,
            hidden=not is_shown,
        )
        self.field = field
        self.group = group


class OptionalValue(click.Option):
    """An option that may also stand without a value, which is the empty text then.

    Args:
        takes: tells whether the argument after it is its value.
    """

    def __init__(self, *args: Any, takes: Callable[[str], bool], **options: Any) -> None:
        super().__init__(*args, **options)
        self.takes = takes


class Command(click.Command):
    """A command whose variables may also be given as `name=value`.

    Args:
        has_terms: other words with `=` are arguments of the command's own.
    """

    def __init__(self, *args: Any, has_terms: bool = False, **options: Any) -> None:
        options["context_settings"] = CONTEXT | options.get("context_settings", {}) | {
            "token_normalize_func": lambda word: word.replace("_", "-")}
        super().__init__(*args, **options)
        self._has_terms = has_terms

    @property
    def _variables(self) -> dict[str, Variable]:
        return {p.field.name: p for p in self.params if isinstance(p, Variable)}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses options and words; what variables they give becomes the parameter `words`."""
        rest = super().parse_args(ctx, list(self._as_options(args)))
        found = {name: ctx.params.pop(f"variable_{name}", None) for name in self._variables}
        if found:
            ctx.params["words"] = {n: value for n, value in found.items() if value is not None}
        return rest

    def _as_options(self, args: Sequence[str]) -> Iterator[str]:
        """Yields the arguments, each word `name=value` as the option that it stands for."""
        options = {name: param for param in self.params if isinstance(param, click.Option)
                   for name in param.opts}
        is_value = is_literal = False
        for arg, following in zip(args, [*args[1:], ""], strict=False):
            if not is_value and not is_literal:
                check_typography(arg)
            word = _WORD.fullmatch(arg)
            optional = None if is_value or is_literal else options.get(arg)
            if isinstance(optional, OptionalValue) and not optional.takes(following):
                yield f"{arg}="
                continue
            if is_value or is_literal or arg.startswith("-") or word is None:
                yield arg
            elif word[1].replace("-", "_") in self._variables:
                yield f"--{word[1].replace('_', '-')}={word[2]}"
            elif self._has_terms:
                yield arg
            else:
                raise self._unknown(word[1])
            name = arg.replace("_", "-")
            is_literal = is_literal or (arg == "--" and not is_value)
            is_value = (not is_value and name in options and not options[name].is_flag
                        and not options[name].count)

    def _unknown(self, name: str) -> RecipeError:
        known = list(self._variables)
        if name in VARIABLES:
            return RecipeError(f"sdbuild {self.name} does not use {name}",
                               hint=f"sdbuild {self.name} --help lists those that it uses")
        hint = f"sdbuild {self.name} --help lists the variables" if known else "it has no variables"
        return RecipeError(f"unknown variable {shown(name)}{did_you_mean(name, known)}",
                           hint=f"{hint}; an argument with = in it goes after --")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the command's own options, then the variables by group."""
        groups: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            record = isinstance(param, click.Option) and param.get_help_record(ctx)
            if record:
                groups.setdefault(getattr(param, "group", "Options"), []).append(record)
        if any(isinstance(param, Variable) for param in self.params):
            formatter.write_paragraph()
            formatter.write_text("Variables are given as --name VALUE or name=VALUE.")
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records, col_max=30)


def check_typography(arg: str) -> None:
    """Refuses an argument that was copied from a page which replaced dashes or quotes.

    Raises:
        RecipeError: it begins with a typographic dash, or its value with a quote that is not closed
            in it, as the shell splits it at spaces.
    """
    name, _, value = arg.rpartition("=")
    if _DASH.match(arg) or _QUOTE.match(name or value):
        plain = _QUOTE.sub("", _DASH.sub("--", arg)).strip(_QUOTES)
    elif _QUOTE.match(value) and not _QUOTE.search(value[1:]):
        plain = f'{name}="{value.strip(_QUOTES)} …"'
    else:
        return
    raise RecipeError(f"{shown(arg)}: a typographic dash or quote, expected a plain one",
                      hint=f"it was probably copied from a web page; type {plain}")


def as_command(
    *, has_terms: bool = False, **options: Any
) -> Callable[[Callable[..., int]], Command]:
    """Makes a command of a function, named as its module, whose docstring is its help."""
    def decorate(function: Callable[..., int]) -> Command:
        name = function.__module__.rpartition(".")[2].rstrip("_").replace("_", "-")
        return click.command(name, cls=Command, has_terms=has_terms, **options)(function)
    return decorate


def _adds(groups: Sequence[tuple[str, Sequence[Field]]], is_shown: Callable[[Field], bool]) -> Any:
    def decorate(function: Any) -> Any:
        found = [Variable(field, group, is_shown(field)) for group, fields in groups
                 for field in fields]
        # A decorator of click adds before those that were added, which is the order of reading.
        function.__click_params__ = [*reversed(found), *getattr(function, "__click_params__", [])]
        return function
    return decorate


def recipe_variables(*, with_image: bool = False, without: Collection[str] = ()) -> Any:
    """Adds every variable but those `without`; those of images are shown in the help text only
    `with_image`."""
    order = (_GROUPS[1], _GROUPS[0], _GROUPS[2]) if with_image else _GROUPS
    groups = [(title, [field for field in fields if field.name not in without])
              for title, fields in order]
    return _adds(groups, lambda field: with_image or field not in _OF_IMAGE)


_OF_IMAGE = (*_GROUPS[1][1], VARIABLES["out"], VARIABLES["report"], VARIABLES["trace"],
             VARIABLES["predictor"])

def variables(group: str, *fields: Field) -> Any:
    """Adds some variables."""
    return _adds(((group, fields),), lambda field: True)


store_variables = _adds((("Settings", (VARIABLES["cache"],)),), lambda field: True)
"""Adds `--cache`."""

weight_bytes_option = click.option(
    "--weight-bytes", type=click.IntRange(min=0), metavar="N",
    help="Decoded weights that the portable executor keeps of each component.  [default: all]")
jobs_option = click.option(
    "-n", "--jobs", type=click.IntRange(min=1), metavar="N",
    help="Steps to run at a time.  [default: one for each processor, four at most]")
json_option = click.option("--json", "is_json", is_flag=True,
                           help="Print JSON instead of text (docs/json.md).")


@contextlib.contextmanager
def printed_lines() -> Iterator[list[str]]:
    """Collects what is printed to standard output meanwhile, as lines."""
    lines: list[str] = []
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        yield lines
    lines += printed.getvalue().splitlines()


def print_json(**content: object) -> None:
    """Prints what a command found as one JSON object, with its schema."""
    click.echo(json.dumps({"schema": SCHEMA, **content}, indent=2))


def open_store(words: dict[str, str]) -> Store:
    """Returns the store that exists where the settings say.

    Raises:
        StoreError: there is none.
    """
    from sdbuild.recipe.settings import store_folder
    from sdbuild.store import Store

    root = store_folder(words)
    if not (root / "records").is_dir():
        what = "nothing was made there yet" if root.is_dir() else "there is no such folder"
        raise StoreError(f"{root}: {what}, expected a store",
                         hint="name it with --cache FOLDER; sdbuild build makes it")
    return Store(root)


def with_model(words: dict[str, str], model: str) -> dict[str, str]:
    """Returns the variables of a command that takes the recipe as an argument.

    Raises:
        RecipeError: another recipe is given as a variable.
    """
    if words.setdefault("model", model) != model:
        raise RecipeError(f"model={words['model']}: the recipe is named already: {model}",
                          hint="leave one of them away")
    return words
