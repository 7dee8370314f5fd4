"""`forget`: drops the records of steps."""

from sdbuild.cli.commands import doit_command

command = doit_command("forget", "Drop the records of steps, so that they run again.")
