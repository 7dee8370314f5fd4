"""`list`: the tasks of doit."""

from sdbuild.cli.commands import doit_command

command = doit_command("list", "List the tasks; with --all also the single steps.")
