"""Lines that are wider than the terminal are broken at spaces."""

import io

import pytest

from sdbuild.base.printable import Printable, fitted


@pytest.mark.parametrize(("line", "shown"), [
    ("a short line", "a short line"),
    ("hint: use fewer bits, or more memory",
     "hint: use fewer bits, or\nmore memory"),
    ("unet        never made, so it would run",
     "unet        never made,\n            so it would\n            run"),
    ("    from hub:owner/one, hub:owner/two", "    from hub:owner/one,\n      hub:owner/two"),
    ("/a/path/without/any/spaces/in/it", "/a/path/without/any/spaces/in/it"),
    ("one\n\nand the other one of both lines", "one\n\nand the other one of\nboth lines"),
])
def test_a_wide_line_goes_on_below_its_text(line, shown):
    assert fitted(line, 24) == shown


@pytest.mark.parametrize("line", [
    "next: sdbuild generate bundles/tiny-emoji", "    model=tiny-emoji quant=6 chunk=2",
    "    'prompt=a red fox' quant=6 chunk=2", '  "message": "a long message of many words"',
])
def test_what_is_copied_stays_on_its_line(line):
    assert fitted(line, 24) == line


def test_only_a_terminal_gets_other_lines(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "24")
    text = "hint: use fewer bits, or more memory\n"

    for stream, wanted in ((io.StringIO(), text), (Terminal(), fitted(text, 24))):
        Printable(stream).write(text)
        assert stream.getvalue() == wanted
