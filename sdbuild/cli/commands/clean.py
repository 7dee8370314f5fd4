"""`clean`: removes what tasks made."""

from sdbuild.cli.commands import doit_command

command = doit_command("clean", "Remove a bundle (clean build), or the records of steps.")
