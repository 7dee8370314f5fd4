"""The live line of a build, on a terminal of 80 columns."""

import io

import pytest

from sdbuild.base.printable import Printable
from sdbuild.base.progress import Progress
from sdbuild.cli.display import Display, above, bar, is_live
from tests.terminal import COLUMNS, ENVIRONMENT, Terminal, lines, shown


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def written(work):
    """Returns the text that a display writes to a terminal."""
    terminal = Terminal()
    display = Display(Printable(terminal.stream))
    display.total = 25
    display.numbers = {"palettize:unet": 14, "trace:vae_decoder": 15}
    work(display, terminal.stream)
    return terminal.written()


def of_one_step(progress, held_bytes=800_000_000, name="palettize:unet", seconds=None):
    def work(display, stream):
        with display.watching(name, seconds) as watch:
            watch(progress, held_bytes)
            with display.hidden():
                pass  # what follows is drawn at once
    return lines(written(work))[-1]


def test_the_line_names_the_step_its_place_among_all_what_is_done_and_what_memory_it_holds():
    line = of_one_step(Progress(171, 282, "tensors"))
    assert line.startswith("[14/25] palettize:unet ██")
    assert line.endswith("171/282 tensors  0:00 · 800.0 MB")
    assert len(line) < COLUMNS


def test_bytes_are_shown_as_sizes():
    assert "1.2 GB of 5.2 GB" in of_one_step(Progress(1_200_000_000, 5_200_000_000, "bytes"))


def test_a_step_that_counts_nothing_shows_what_it_will_take_if_that_is_known():
    assert of_one_step(None, seconds=100.0) == "[14/25] palettize:unet about 1:40 left · 800.0 MB"
    assert of_one_step(None) == "[14/25] palettize:unet 0:00 · 800.0 MB"


def test_a_step_that_is_none_of_those_asked_for_has_no_number():
    assert of_one_step(None, name="merge:unet") == "merge:unet 0:00 · 800.0 MB"


def test_no_line_is_wider_than_the_terminal():
    progress = Progress(123_456_789, 123_456_789, "tensors")
    line = of_one_step(progress, 123_400_000_000, name="palettize:" + "controlled_unet" * 4)
    assert len(line) == COLUMNS - 1


def test_nothing_is_left_of_the_line_but_what_was_printed_meanwhile():
    def work(display, stream):
        with display.watching("palettize:unet", None), display.hidden():
            stream.write("done before\n")
            stream.flush()
    assert shown(written(work)) == ["done before"]


def test_steps_that_run_at_a_time_have_a_line_each():
    def work(display, stream):
        with display.watching("palettize:unet", None), \
                display.watching("trace:vae_decoder", None), display.hidden():
            pass
    last = lines(written(work))[-2:]
    assert [line.split(" 0:")[0] for line in last] == \
        ["[14/25] palettize:unet", "[15/25] trace:vae_decoder"]


def test_a_build_that_is_killed_leaves_a_terminal_with_its_cursor():
    def work(display, stream):
        with display.watching("palettize:unet", None):
            pass
    assert "\x1b[?25l" not in written(work)


def test_an_interrupt_while_lines_are_drawn_leaves_none_and_raises_nothing_else(monkeypatch):
    def work(display, stream):
        def interrupted(live, refresh=False):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("rich.live.Live.start", interrupted)
            with pytest.raises(KeyboardInterrupt), display.watching("palettize:unet", None):
                pass
        display.close()
        with above():
            stream.write("interrupted\n")

    assert lines(written(work))[-1] == "interrupted"


def test_no_line_is_drawn_after_the_last_word_of_a_build():
    def work(display, stream):
        with display.watching("palettize:unet", None):
            display.close()
            with display.hidden():
                stream.write("interrupted\n")
            with display.watching("trace:vae_decoder", None):
                pass

    assert lines(written(work))[-1] == "interrupted"


def test_no_color_leaves_colours_away(monkeypatch):
    def work(display, stream):
        with display.watching("palettize:unet", None) as watch:
            watch(Progress(1, 2, "tensors"), 1)
            with display.hidden():
                pass
    assert "\x1b[36m" in written(work)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[36m" not in written(work)


@pytest.mark.parametrize("environment", [
    {"TERM": "dumb"}, {"TERM": ""}, {}, {"TERM": "xterm", "CI": "true"},
], ids=str)
def test_no_line_is_shown_where_nothing_can_be_drawn_again_or_nobody_looks(environment):
    terminal = Terminal()
    assert is_live(terminal.stream, {"TERM": "xterm"})
    assert not is_live(terminal.stream, environment)
    terminal.written()


def test_no_line_is_shown_in_a_pipe():
    display = Display(io.StringIO())
    with display.watching("palettize:unet", None) as watch:
        assert watch is None
    assert not display.is_live


@pytest.mark.parametrize(("part", "expected"), [
    (0, "      "), (1, "██████"), (0.5, "███   "), (1 / 48, "▏     "), (7, "██████"),
    (-1, "      "), (0.25, "█▌    "),
])
def test_a_bar_is_as_full_as_the_part(part, expected):
    assert bar(part, 6) == expected


def test_a_bar_without_unicode_is_full_of_signs():
    assert bar(0.5, 6, is_ascii=True) == "###---"
