"""`completion`: scripts that let shells complete commands, options and values."""

from __future__ import annotations

import click

from sdbuild.cli.options import as_command


@as_command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> int:
    """Print a shell completion script.

    \b
    bash: sdbuild completion bash >> ~/.bashrc
    zsh:  sdbuild completion zsh >> ~/.zshrc
    fish: sdbuild completion fish > ~/.config/fish/completions/sdbuild.fish
    """
    from click.shell_completion import get_completion_class

    from sdbuild.cli.main import cli

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(cli, {}, "sdbuild", "_SDBUILD_COMPLETE").source())
    return 0
