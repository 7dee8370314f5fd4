"""The commands that the pages print, in blocks of `console`."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = sorted([
    *ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/formats/*.md"),
    *ROOT.glob("docs/tutorials/*.md"),
    *ROOT.glob("examples/*/*.md"), *ROOT.glob("tests/*/*.md"),
])
_BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINE = re.compile(r"^\w*\$ +(.*)$(?:\nERROR: (.*))?", re.MULTILINE)
_INLINE = re.compile(r"`((?:sdbuild|doit) [^`\n]+)`")
_SETTING = re.compile(r"[A-Z_]+=.*")


@dataclass(frozen=True)
class Printed:
    """A command as a page prints it, where, and the error that the page shows below it."""

    page: str
    line: int
    words: tuple[str, ...]
    error: str

    def __str__(self):
        return f"{self.page}:{self.line}: {shlex.join(self.words)}"


def printed():
    """Every command of every block, without its comment and the variables before it."""
    for page in PAGES:
        text = page.read_text("utf-8")
        for block in _BLOCK.finditer(text):
            for line in _LINE.finditer(block[1]):
                at = text.count("\n", 0, block.start(1) + line.start()) + 1
                for words in _commands(line[1]):
                    yield Printed(page.relative_to(ROOT).as_posix(), at, words, line[2] or "")


def _commands(line):
    words = []
    for word in [*shlex.split(line, comments=True), "&&"]:
        if word != "&&":
            words.append(word)
            continue
        while words and _SETTING.fullmatch(words[0]):
            words.pop(0)
        yield tuple(words)
        words = []


def mentioned():
    """Every `sdbuild …` and `doit …` within a sentence: its page and its words."""
    for page in PAGES:
        for found in _INLINE.finditer(re.sub(r"^```.*?^```", "", page.read_text("utf-8"),
                                             flags=re.MULTILINE | re.DOTALL)):
            yield page.relative_to(ROOT).as_posix(), tuple(found[1].split())
