"""What the commands share: options, and how an error reaches the user."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from hvx.errors import HvxError
from hvx.progress import set_quiet

Command = TypeVar("Command", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)

config_argument = click.argument("config", type=PATH)
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE",
    help="Override one key of the config, such as --set explain.batch_images=4. Repeatable.",
)  # fmt: skip
device_option = click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:i]", help="Where the network runs."
)
seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of chance."
)


class _Failure(click.ClickException):
    """An error as one line on stderr, with the exit status of what cannot be done."""

    exit_code = HvxError.exit_status

    def __init__(self, error: HvxError) -> None:
        super().__init__(" ".join(str(error).split()))


def common(command: Command) -> Command:
    """Add --quiet and --debug, and turn hvx's errors into one line and exit status 2."""

    @click.option("--quiet", is_flag=True, help="No progress bars.")
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(command)
    def wrapped(*args: Any, quiet: bool, debug: bool, **kwargs: Any) -> Any:
        set_quiet(quiet)
        try:
            return command(*args, **kwargs)
        except HvxError as error:
            if debug:
                raise
            raise _Failure(error) from None

    return wrapped  # type: ignore[return-value]
