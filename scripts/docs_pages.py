"""Hooks of mkdocs: pages written from the code, and links that lead out of docs/.

`reference/` is nowhere in the repository, so it cannot be out of date.
"""

from __future__ import annotations

import inspect
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from sdbuild.cli.main import SECTIONS, cli  # noqa: E402  # from this clone
from sdbuild.cli.options import Variable  # noqa: E402
from sdbuild.recipe.fields import CHECK_FIELDS, DRAW_FIELDS, RECIPE_FIELDS, REQUIRED  # noqa: E402

_LINK = re.compile(r"(?<!!)\[((?:[^][]|\[[^]]*\])*)\]\((?![a-z]+:|#)([^)\s#]+)(?:#[^)]*)?\)")


def on_config(config: Any) -> None:
    """Lists every decision below the table of them, and pages that the menu does not name last."""
    docs = Path(config["docs_dir"])
    section = next(each["Decisions"] for each in config["nav"] if "Decisions" in each)
    section += [f"decisions/{path.name}" for path in sorted((docs / "decisions").glob("0*.md"))]
    pages = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    if rest := sorted(pages - set(_listed(config["nav"]))):
        config["nav"].append({"More": rest})


def _listed(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for each in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _listed(each)


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages of the reference."""
    pages = {"commands": commands(), "fields": fields(), "recipes": recipes()}
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Leaves out links to files that are not in docs/, such as tests: the site does not have them.

    What stands in a code block is left as it is.
    """
    folder = Path(page.file.src_uri).parent

    def kept(link: re.Match[str]) -> str:
        parts: list[str] = []
        for part in (folder / link[2]).parts:
            if part != "..":
                parts.append(part)
            elif parts:
                parts.pop()
            else:
                return link[1]
        return link[0]

    blocks = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(block if block.startswith("```") else _LINK.sub(kept, block)
                   for block in blocks)


def commands() -> str:
    """The page of all commands: their help, without the variables, which have their own page."""
    lines = ["# Commands", "",
             "What `sdbuild COMMAND --help` prints. Every command also takes the "
             "[variables](../variables.md) that it lists, as `--quant 6` or `quant=6`."]
    context = click.Context(cli, info_name="sdbuild")
    for section, names in SECTIONS.items():
        lines += ["", f"## {section}"]
        for name in names:
            command = cli.get_command(context, name)
            if command is not None:
                lines += ["", *_command(command, context)]
    return "\n".join(lines) + "\n"


def _command(command: click.Command, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=command.name, parent=parent,
                            max_content_width=80)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"### {command.name}"
    yield from ["", "```console", f"$ sdbuild {command.name} {usage}", "```", ""]
    yield re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(command.help or ""))
    own = [param for param in command.params
           if isinstance(param, click.Option) and not isinstance(param, Variable)]
    if own:
        yield from ["", "| option | |", "| --- | --- |"]
        for param in own:
            names = " ".join(f"`{name}`" for name in param.opts)
            value = f" `{param.metavar}`" if param.metavar else ""
            yield f"| {names}{value} | {_cell(param.help or '')} |"
    variables = [f"`{p.field.name}`" for p in command.params if isinstance(p, Variable)]
    if variables:
        yield from ["", f"Variables: {', '.join(variables)}."]


def fields() -> str:
    """The page of all fields of a recipe."""
    lines = ["# Fields of recipes", "", "Those of the recipe itself are "
             "[variables](../variables.md) of the command line, too."]
    for title, table in (("The recipe", RECIPE_FIELDS), ("`[draw]`", DRAW_FIELDS),
                         ("`[check]`", CHECK_FIELDS)):
        lines += ["", f"## {title}", "", "| field | values | default | |",
                  "| --- | --- | --- | --- |"]
        for field in table:
            values = " ".join(f"`{value}`" for value in field.choices) or f"`{field.unit}`"
            lines.append(f"| `{field.name}` | {_cell(values)} | {_default(field.default)} "
                         f"| {_cell(field.meaning)} |")
    return "\n".join(lines) + "\n"


def _default(value: object) -> str:
    if value is REQUIRED:
        return "required"
    if value in (None, "", []):
        return ""
    return f"`{','.join(map(str, value)) if isinstance(value, list) else value}`"


def recipes() -> str:
    """The page of the recipes that come with sdbuild."""
    lines = ["# Built-in recipes", "", "`sdbuild build model=NAME` builds one; `sdbuild recipes` "
             "lists these and those of the project.", "", "| name | | family | size | checkpoint |",
             "| --- | --- | --- | --- | --- |"]
    for path in sorted((ROOT / "recipes").glob("*.toml")):
        found = tomllib.loads(path.read_text("utf-8"))
        source = found["source"]
        places = "<br>".join(f"`{each}`" for each in ([source] if isinstance(source, str)
                                                      else source))
        lines.append(f"| `{path.stem}` | {_cell(found['summary'])} | `{found['family']}` "
                     f"| `{found.get('size', '')}` | {places} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
