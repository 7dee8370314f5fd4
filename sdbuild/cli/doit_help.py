"""`doit help TASK`: what the task does, and the variables that it takes."""

from __future__ import annotations

from collections.abc import Sequence

from doit.cmd_help import Help

from sdbuild.recipe.fields import VARIABLES


class HelpVariables(Help):
    """`doit help`, which lists the variables behind the help of a task."""

    name = "help"

    def _execute(self, pos_args: Sequence[str]) -> bool:
        if not super()._execute(pos_args):
            return False
        print(f"\nVariables, as in: doit {pos_args[0]} quant=6")
        for field in VARIABLES.values():
            print(f"  {field.name:<16} {'|'.join(field.choices) or field.unit}\n"
                  f"                   {field.meaning}")
        print(f"\nsdbuild why {pos_args[0]} explains what would run; sdbuild --help lists more.")
        return True
