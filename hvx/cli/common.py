"""Shared parts of the commands: parameter types, options, and error reporting."""

from __future__ import annotations

import errno
import functools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import click

from hvx.device_name import check_device_name
from hvx.errors import HvxError, Interrupted
from hvx.files import json_bytes
from hvx.progress import reporting
from hvx.run.signals import StopSignal, handle_signals
from hvx.store.names import DESCRIPTION
from hvx.terminal import (
    OutputClosed,
    echo_error,
    echo_lines,
    echo_traceback,
    printed_as_is,
    printing,
    safe,
)

Command = TypeVar("Command", bound=Callable[..., Any])

FAULT = 1
"""Exit status of a bug in hvx."""

_LEAST_MEMORY = 10**9
"""Bytes of address space with which NumPy, SciPy and h5py load, with room to spare."""

PATH = click.Path(path_type=Path)


class Existing(click.Path):
    """A path that must exist; checked before a command imports PyTorch, which takes seconds.

    Args:
        kind: the kind of file, for the error: "checkpoint".
    """

    def __init__(self, kind: str) -> None:
        super().__init__(path_type=Path)
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path.

        Raises:
            HvxError: it does not exist, or cannot be accessed.
        """
        path = cast("Path", super().convert(value, param, ctx))
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise HvxError(f"{path}: no such {self.kind}") from None
        except (OSError, ValueError) as error:
            raise HvxError(f"{path}: cannot be read ({self.kind}): {error}") from None
        return path


class RunPath(Existing):
    """A run folder or its parent: ``runs/daquar`` means ``runs/daquar/run``.

    Args:
        kind: as in ``Existing``.
        or_file: whether to accept a file, too.
    """

    def __init__(self, kind: str = "run folder", or_file: bool = False) -> None:
        super().__init__(kind)
        self.or_file = or_file

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The run folder.

        Raises:
            HvxError: there is none, or more than one.
        """
        path: Path = super().convert(value, param, ctx)
        return path if self.or_file and not path.is_dir() else run_folder(path)


def run_folder(path: Path) -> Path:
    """``path`` if it is a run, or the only run in it.

    Raises:
        HvxError: it contains no run, or more than one.
    """
    if not path.is_dir():
        raise HvxError(f"{path}: expected a run folder, not a file")
    if (path / DESCRIPTION).exists():
        return path
    try:
        inside = sorted(child for child in path.iterdir() if (child / DESCRIPTION).is_file())
    except OSError as error:
        raise HvxError(f"{path}: cannot be read (run folder): {error}") from None
    if len(inside) > 1:
        raise HvxError(f"{path}: holds {len(inside):,} runs; name one of them, such as {inside[0]}")
    if not inside:
        raise HvxError(f"{path}: not a run folder; there is no run.json in it")
    return inside[0]


config_argument = click.argument("config", type=Existing("config file"))
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE",
    help="Override one key of the config, such as --set explain.batch_images=4. Repeatable.",
)  # fmt: skip
model_option = click.option(
    "--model", metavar="FILE.py:FUNCTION",
    help="Explain a module of your own: FUNCTION, in the Python file, which is run, returns an hvx.Adapter "
    "(docs/own_module.md). The config's checkpoint and model are then not used.",
)  # fmt: skip


def _check_device(ctx: click.Context, param: click.Parameter, value: str) -> str:
    del ctx, param
    check_device_name(value)
    return value


device_option = click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:i]", callback=_check_device,
    help="Where the network runs.",
)  # fmt: skip
seed_option = click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, metavar="INTEGER",
    help="Seed of chance, 0 or more.",
)  # fmt: skip


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def print_json(value: Any) -> None:
    """Print one JSON object on stdout; unknown values are null."""
    text = json_bytes(value, indent=1).decode().rstrip("\n")
    # Terminal escapes such as \xe9 are not valid JSON.
    echo_lines(text if printed_as_is(text) else json.dumps(value, indent=1))


def give_up(error: HvxError) -> NoReturn:
    """Print an error as one line on stderr and exit with its status."""
    echo_error(error)
    raise SystemExit(error.exit_status)


def common(command: Command) -> Command:
    """Add --quiet and --debug; turn errors and stop signals into one line and an exit status."""

    @click.option("--quiet", is_flag=True, help="No progress bars or lines.")
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(command)
    def wrapped(*args: Any, quiet: bool, debug: bool, **kwargs: Any) -> Any:
        with reporting(quiet), handle_signals(last=True) as requests, _report_errors(debug, requests):
            _check_memory_limit()
            return command(*args, **kwargs)

    return wrapped  # type: ignore[return-value]


@contextmanager
def _report_errors(debug: bool, requests: StopSignal) -> Iterator[None]:
    try:
        try:
            yield
        finally:
            requests.end()
    except (click.ClickException, click.exceptions.Exit, click.Abort, OutputClosed):
        raise
    except KeyboardInterrupt:
        give_up(Interrupted("interrupted"))
    except Exception as error:
        if requests.came and not isinstance(error, Interrupted) and not debug:
            give_up(Interrupted("interrupted"))  # the signal caused the error, as in a decoding process
        if debug:
            echo_traceback(error)
            raise SystemExit(getattr(error, "exit_status", FAULT)) from None
        if isinstance(error, HvxError):
            give_up(error)
        if isinstance(error, (ImportError, MemoryError)):
            # With limited memory, PyTorch's libraries cannot be mapped.
            reason = str(error) or "out of memory"
            give_up(HvxError(f"too little memory, or a broken installation: {reason}"))
        if isinstance(error, OSError) and error.strerror:
            name = f"{error.filename}: " if error.filename is not None else ""
            hint = "; raise the limit, as with `ulimit -n 1024`" if error.errno == errno.EMFILE else ""
            give_up(HvxError(f"{name}{error.strerror}{hint}"))
        if _memory_limit() is not None:  # libraries raise various errors if memory runs out
            give_up(HvxError(f"too little memory, or a fault of hvx: the limit is on (ulimit -v): {error}"))
        echo_error(
            RuntimeError(
                f"unexpected {type(error).__name__}: {error}; this is a fault of hvx: please report it "
                "with the traceback that --debug shows"
            )
        )
        raise SystemExit(FAULT) from None


def _memory_limit() -> int | None:
    """The limit of the process's address space in bytes; None if there is none."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _check_memory_limit() -> None:
    """Refuse a limit with which OpenBLAS (NumPy, SciPy) ends the process, or never returns, when loaded."""
    limit = _memory_limit()
    if limit is not None and limit < _LEAST_MEMORY:
        raise HvxError(
            f"too little memory: its limit (ulimit -v) is {limit // 10**6:,} MB, and hvx needs "
            f"{_LEAST_MEMORY // 10**6:,} MB or more"
        )


class Main(click.Group):
    """The group of commands; checks the platform and the output, and escapes click's errors.

    Args:
        modules: command → the module that has it, under the same name or, for a keyword, with ``_`` after it.
    """

    def __init__(self, *args: Any, modules: dict[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._modules = modules or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in order."""
        return sorted({*self.commands, *self._modules})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command; its module is imported now."""
        module = self._modules.get(cmd_name)
        if module and cmd_name not in self.commands:
            self.add_command(getattr(import_module(module), module.rpartition(".")[2]))
        return super().get_command(ctx, cmd_name)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line."""
        try:
            if sys.platform == "win32":
                raise HvxError("hvx runs on Linux and macOS; on Windows, use the Windows Subsystem for Linux")
            with printing():
                return super().main(*args, **kwargs)
        except HvxError as error:
            give_up(error)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """As in click, with safe error messages."""
        with _safe_click_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """As in click, with safe error messages."""
        with _safe_click_errors():
            return super().invoke(ctx)


@contextmanager
def _safe_click_errors() -> Iterator[None]:
    """Escape control characters in click's errors."""
    try:
        yield
    except click.ClickException as error:
        error.message = safe(error.message)  # type: ignore[misc]  # "final" only since click 8.2
        raise
