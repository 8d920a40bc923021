"""``edgecls completion``."""

from __future__ import annotations

import click

from edgecls.cli.common import cli_command
from edgecls.console import Console


@cli_command(
    "edgecls completion bash >> ~/.bashrc",
    "edgecls completion zsh >> ~/.zshrc",
    "edgecls completion fish > ~/.config/fish/completions/edgecls.fish",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(console: Console, shell: str) -> None:
    """Print the script that makes SHELL complete models, recipes, devices and runs."""
    from click.shell_completion import get_completion_class

    from edgecls.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None  # click knows these three
    script = found(cli, {}, "edgecls", "_EDGECLS_COMPLETE").source()
    console.emit({"schema": "edgecls.completion/1", "shell": shell, "script": script}, lambda _: script)
