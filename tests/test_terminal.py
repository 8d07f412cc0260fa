"""What reaches a terminal: safe lines; errors of the output; errors of commands and their exit statuses."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from conftest import hvx

from hvx import progress
from hvx.cli import main
from hvx.cli.common import Main, common
from hvx.errors import HvxError, Interrupted
from hvx.terminal import OutputClosed, echo, echo_error, echo_lines, printing, safe

ESC = "\x1b"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"a{ESC}[31mred", r"a\x1b[31mred"),
        (f"{ESC}]0;title\x07", r"\x1b]0;title\x07"),
        ("a\nb\rc\td\0e", r"a\nb\rc\td\x00e"),
        ("a\x7fb\x80c\x9bd\x85e", r"a\x7fb\x80c\x9bd\x85e"),
        ("a\u202eb\u202dc\u202cd", r"a\u202eb\u202dc\u202cd"),
        ("a\u2066b\u2067c\u2068d\u2069e", r"a\u2066b\u2067c\u2068d\u2069e"),
        ("a\u200eb\u200fc\u061cd", r"a\u200eb\u200fc\u061cd"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("a\ufeffb\u200bc\u00add", r"a\ufeffb\u200bc\xadd"),
        ("a\U000e0041b", r"a\U000e0041b"),
        ("a\udc80b", r"a\udc80b"),
    ],
)
def test_what_acts_on_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert safe(text) == shown


@pytest.mark.parametrize(
    "text",
    ["", "plain ASCII ~!", "naïve café", "这是什么？", "ما هذا؟", "می\u200cخواهم", "क्\u200dष", "👩\u200d🔬 🏳️",
     "a\u00a0b\u3000c", "\u0600\u06dd", "e\u0301", "≥ × ∘ ‖ …", r"C:\new"],
)  # fmt: skip
def test_what_people_write_stays(text: str) -> None:
    assert safe(text) == text


def test_no_character_of_a_category_that_acts_is_left() -> None:
    text = "".join(map(chr, range(sys.maxunicode + 1)))
    left = {c for c in safe(text) if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}
    assert left == set("\u200c\u200d\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2")


def printed(call: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    call()
    out, err = capsys.readouterr()
    return out, err


def test_a_line_is_one_line_on_its_stream(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(lambda: echo("a\nb"), capsys) == ("a\\nb\n", "")
    assert printed(lambda: echo("a\nb", err=True), capsys) == ("", "a\\nb\n")
    assert printed(lambda: echo(), capsys) == ("\n", "")


def test_a_table_keeps_its_own_line_ends_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(lambda: echo_lines("a\n\nb\u2028c\r"), capsys) == ("a\n\nb\\u2028c\\r\n", "")
    assert printed(lambda: echo_lines("a\nb", err=True), capsys) == ("", "a\nb\n")


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    error = HvxError(f"a  b:\n\n   c{ESC}[2J\td")
    assert printed(lambda: echo_error(error), capsys) == ("", "Error: a  b: c\\x1b[2J\\td\n")


def test_a_long_error_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    for length, shown in ((2000, "x" * 2000), (2001, "x" * 1999 + "…")):
        assert printed(lambda text="x" * length: echo_error(HvxError(text)), capsys) == (
            "",
            f"Error: {shown}\n",
        )


def test_characters_that_the_output_cannot_hold_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    echo("naïve 这")
    assert raw.getvalue() == b"na\\xefve \\u8fd9\n"


class Broken(io.StringIO):
    """A stream that cannot be written."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))


def test_a_stdout_that_cannot_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(errno.ENOSPC))
    with pytest.raises(HvxError, match=r"^standard output: cannot be written: No space left on device$"):
        echo("a")
    monkeypatch.setattr(sys, "stdout", Broken(errno.EPIPE))
    with pytest.raises(OutputClosed) as raised:
        echo("a")
    assert raised.value.errno == errno.EPIPE


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE])
def test_a_stderr_that_cannot_be_written_ends_no_work(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(sys, "stderr", Broken(number))
    echo("a", err=True)


def test_warnings_are_one_safe_line_while_a_command_runs(capsys: pytest.CaptureFixture[str]) -> None:
    before = warnings.formatwarning
    with printing():
        shown = warnings.formatwarning(UserWarning(f"a\nb{ESC}[1m"), UserWarning, "file.py", 3)
        assert shown == "UserWarning: a b\\x1b[1m\n"
    assert warnings.formatwarning is before


def test_the_label_of_a_progress_bar_is_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = []
    monkeypatch.setattr("tqdm.tqdm", lambda items, **options: labels.append(options["desc"]) or items)
    assert list(progress.bar([1, 2], f"a{ESC}b")) == [1, 2]
    assert labels == ["a\\x1bb"]


# A command that ends with an error


def command_that(raises: BaseException | None) -> Main:
    group = Main()

    @group.command()
    @common
    def work() -> None:
        if raises:
            raise raises
        echo("done")

    return group


def run(raises: BaseException | None, *options: str) -> Result:
    return CliRunner().invoke(command_that(raises), ["work", *options])


def with_name(error: OSError, name: str) -> OSError:
    error.filename = name
    return error


@pytest.mark.parametrize(
    ("raises", "status", "said"),
    [
        (HvxError(f"x{ESC}y: wrong"), 2, "x\\x1by: wrong"),
        (Interrupted("stopped"), 130, "stopped"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 2, "too little memory, or a broken installation: out of memory"),
        (ImportError("no libx.so"), 2, "too little memory, or a broken installation: no libx.so"),
        (
            OSError(errno.EMFILE, "Too many open files"), 2,
            "Too many open files; raise the limit, as with `ulimit -n 1024`",
        ),
        (with_name(OSError(errno.EIO, "Input/output error"), "f"), 2, "f: Input/output error"),
        (
            ValueError("odd"), 1,
            "unexpected ValueError: odd; this is a fault of hvx: please report it with the traceback that "
            "--debug shows",
        ),
        (
            OSError("odd"), 1,
            "unexpected OSError: odd; this is a fault of hvx: please report it with the traceback that "
            "--debug shows",
        ),
    ],
)  # fmt: skip
def test_an_error_is_a_line_and_an_exit_status(raises: BaseException, status: int, said: str) -> None:
    done = run(raises)
    assert (done.exit_code, done.stdout, done.stderr) == (status, "", f"Error: {said}\n")


@pytest.mark.parametrize(
    ("raises", "status", "last"),
    [
        (HvxError(f"x{ESC}y"), 2, "hvx.errors.HvxError: x\\x1by"),
        (Interrupted("stopped"), 130, "hvx.errors.Interrupted: stopped"),
        (ValueError("odd"), 1, "ValueError: odd"),
    ],
)
def test_debug_shows_where_an_error_comes_from(raises: BaseException, status: int, last: str) -> None:
    done = run(raises, "--debug")
    lines = done.stderr.splitlines()
    assert (done.exit_code, done.stdout) == (status, "")
    assert (lines[0], lines[-1]) == ("Traceback (most recent call last):", last)
    assert any("raise raises" in line for line in lines)


def test_what_click_raises_is_left_to_click() -> None:
    assert run(click.exceptions.Exit(7)).exit_code == 7
    assert "Error: odd\\x1b value" in run(click.BadParameter(f"odd{ESC} value")).stderr.replace(
        "Invalid value: ", ""
    )
    assert run(SystemExit(5)).exit_code == 5
    done = run(click.Abort())
    assert (done.exit_code, done.stderr.strip()) == (1, "Aborted!")


def test_a_reader_that_is_gone_ends_a_command_quietly() -> None:
    done = run(OutputClosed())
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", "")


def test_a_command_that_works_exits_with_0() -> None:
    done = run(None)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "done\n", "")


def test_sigterm_stops_a_command() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    group = Main()

    @group.command()
    @common
    def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("not stopped")

    try:
        done = CliRunner().invoke(group, ["work"])
    finally:  # a command that was stopped ends its process, and hears no further signals
        for number, handler in before.items():
            signal.signal(number, handler)
    assert (done.exit_code, done.stderr) == (130, "Error: interrupted\n")


@pytest.mark.parametrize(
    "line", [[f"x{ESC}"], [f"--x{ESC}"], ["figure", f"--x{ESC}"], ["figure", "--rows", ESC]]
)
def test_what_click_quotes_is_safe(line: list[str]) -> None:
    done = CliRunner().invoke(main, line)
    assert done.exit_code == 2
    assert ESC not in done.stderr
    assert "\\x1b" in done.stderr


def test_the_name_of_a_file_is_safe(tmp_path: Path) -> None:
    bad = tmp_path / f"a{ESC}[31m\u202eb"
    done = hvx("info", bad)
    assert done == hvx("info", bad)
    assert done.stderr == f"Error: {tmp_path}/a\\x1b[31m\\u202eb: no such run folder or checkpoint\n"


def test_windows_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    done = hvx("info", "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: hvx runs on Linux and macOS; on Windows, use the Windows Subsystem for Linux\n"
    )


# Real outputs that cannot be written


def to(redirection: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run hvx by a shell with a redirection."""
    command = f'exec "$0" -m hvx "$@" {redirection}'
    given = ["bash", "-c", command, sys.executable, *map(str, arguments)]
    return subprocess.run(given, capture_output=True, text=True, check=False, **options)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [["-h"], ["--version"], ["figure", "-h"], ["info", "RUN"]])
def test_a_full_stdout_is_one_line(finished_run: Path, arguments: list[str]) -> None:
    done = to("> /dev/full", *(finished_run if part == "RUN" else part for part in arguments))
    assert done.returncode == 2
    assert done.stderr == "Error: standard output: cannot be written: No space left on device\n"


def test_a_closed_stdout_is_one_line(finished_run: Path) -> None:
    done = to(">&-", "info", finished_run)
    assert done.returncode == 2
    assert done.stderr == "Error: standard output is closed; send it to a file, or to /dev/null\n"


def test_a_reader_that_goes_away_ends_hvx_quietly(finished_run: Path) -> None:
    for arguments in (["info", finished_run], ["-h"]):
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-m", "hvx", *map(str, arguments)]
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
        os.close(writer)
        assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("redirection", ["2>&-", "2> /dev/full"])
def test_a_stderr_that_is_not_there_leaves_the_result(finished_run: Path, redirection: str) -> None:
    done = to(redirection, "info", finished_run)
    assert done.returncode == 0
    assert done.stdout.startswith("run:")
    assert to(redirection, "info", "nosuch").returncode == 2
