"""Tasks of `doit -n` that overlap in threads print nothing that steers a terminal."""

import sys
import threading

from doit.cmd_base import TaskLoader2
from doit.doit_cmd import DoitMain
from doit.task import dict_to_task

from sdbuild.cli.doit_commands import RunWithin
from sdbuild.cli.reporter import Reporter
from sdbuild.cli.tasks import _guarded


class Tasks(TaskLoader2):
    """Doit with some tasks and sdbuild's own way of running them."""

    def __init__(self, folder, actions):
        self.config = {"dep_file": str(folder / "db.json"), "backend": "json",
                       "reporter": Reporter, "verbosity": 1}
        self.actions = actions

    def setup(self, opt_values):
        pass

    def load_doit_config(self):
        return self.config

    def load_tasks(self, cmd, pos_args):
        return [dict_to_task({"name": name, "actions": [_guarded(action)],
                              "io": {"capture": False}})
                for name, action in self.actions.items()]


class Main(DoitMain):
    DOIT_CMDS = (RunWithin,)


def test_what_overlaps_is_printed_safely_and_the_streams_are_as_before(tmp_path, capsys):
    """The first ends while the second goes on, which ends last of all."""
    has_begun, has_ended = threading.Event(), threading.Event()

    def first():
        assert has_begun.wait(60)
        print("first \x1b[2J")

    def second():
        has_begun.set()
        assert has_ended.wait(60)
        print("second \x1b]0;title\x07")
        print("second \x9b31m", file=sys.stderr)

    def third():
        has_ended.set()
        print("third \x1b[2J")

    before = sys.stdout, sys.stderr
    status = Main(Tasks(tmp_path, {"first": first, "second": second, "third": third})).run(
        ["-n", "2"])

    assert status == 0
    assert (sys.stdout, sys.stderr) == before
    printed = "".join(capsys.readouterr())
    assert all(name in printed for name in (r"first \x1b[2J", r"second \x1b]0", r"second \x9b31m"))
    assert not {"\x1b", "\x07", "\x9b"} & set(printed)
