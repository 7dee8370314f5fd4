"""`info`: a task of doit."""

from sdbuild.cli.commands import doit_command

command = doit_command("info", "Show a task: what it needs, and whether it is up to date.")
