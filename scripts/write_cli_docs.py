"""Writes docs/cli.md from the help of the commands, so that it cannot drift.

python scripts/write_cli_docs.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from hvx.cli import main

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
WIDTH = 100

_HEAD = r"""# Commands

Written by `python scripts/write_cli_docs.py` from what `hvx COMMAND -h` says; a test holds it to that.

Exit status: 0 all done; 2 the request cannot be carried out as written; 3 done, but some items failed or
missed and are listed; 130 interrupted. Results go to stdout, all else to stderr. Long work shows a progress
bar on a terminal, and prints a line every half minute where stderr is a file or a pipe; `--quiet`: neither.

## Shell completion

The shell then completes commands and options at the Tab key. Add one line to the shell's start file:

| shell | file | line |
|---|---|---|
| bash 4.4 or later | `~/.bashrc` | `eval "$(_HVX_COMPLETE=bash_source hvx)"` |
| zsh | `~/.zshrc`, after `compinit` | `eval "$(_HVX_COMPLETE=zsh_source hvx)"` |
| fish | `~/.config/fish/completions/hvx.fish` | `_HVX_COMPLETE=fish_source hvx \| source` |

`hvx` must be on the `PATH` when the shell starts. In a virtual environment, run the line after activating it.
"""


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for name, command in _commands(main, "hvx"):
        parts.append(f"## {name}\n\n```\n{_help(name, command)}\n```\n")
    return "\n".join(parts)


def _commands(group: click.Group, prefix: str) -> Iterator[tuple[str, click.Command]]:
    """A group and all below it, by name."""
    yield prefix, group
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def _help(name: str, command: click.Command) -> str:
    settings = {**main.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    with click.Context(command, info_name=name, **settings) as context:
        lines = command.get_help(context).splitlines()
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    click.echo(PAGE)
