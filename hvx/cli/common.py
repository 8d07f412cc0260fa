"""What the commands share: options, and how an error reaches the user."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from hvx.errors import HvxError, Interrupted
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


def _give_up(error: HvxError) -> NoReturn:
    """An error as one line on stderr, with its exit status."""
    click.echo(f"Error: {' '.join(str(error).split())}", err=True)
    raise SystemExit(error.exit_status)


def _stop(number: int, frame: Any) -> None:
    """A request to end (SIGTERM) is met as Ctrl-C is: what is open is dropped, what is done is kept."""
    del number, frame
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the first request is enough; leave time to tidy up
    raise KeyboardInterrupt


def common(command: Command) -> Command:
    """Add --quiet and --debug; turn hvx's errors, and a request to stop, into one line and an exit status."""

    @click.option("--quiet", is_flag=True, help="No progress bars.")
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(command)
    def wrapped(*args: Any, quiet: bool, debug: bool, **kwargs: Any) -> Any:
        set_quiet(quiet)
        signal.signal(signal.SIGTERM, _stop)
        try:
            return command(*args, **kwargs)
        except HvxError as error:
            if debug:
                raise
            _give_up(error)
        except (ImportError, MemoryError) as error:
            if debug:
                raise
            # A process whose memory is limited cannot map PyTorch's libraries.
            reason = str(error) or "out of memory"
            _give_up(HvxError(f"too little memory, or a broken installation: {reason}"))
        except KeyboardInterrupt:
            _give_up(Interrupted("interrupted"))

    return wrapped  # type: ignore[return-value]
