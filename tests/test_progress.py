"""Progress in a log: a line every half minute of a command, none outside of one, none with --quiet."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from hvx import progress
from hvx.cli.common import Main, common


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)

    def items(self, count: int, seconds: float) -> Iterator[int]:
        """Numbers; each takes so many seconds."""
        for number in range(count):
            self.now += seconds
            yield number


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def command(clock: Clock, count: int, seconds: float, total: int | None) -> Main:
    group = Main()

    @group.command()
    @common
    def work() -> None:
        assert list(progress.bar(clock.items(count, seconds), "work", "row", total)) == list(range(count))

    @group.command()
    @common
    def short() -> None:
        for _ in range(4):
            list(progress.bar(clock.items(1, seconds), "short", "row", 1))

    return group


def said(group: click.Group, *arguments: str) -> list[str]:
    done = CliRunner().invoke(group, arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_a_log_has_a_line_every_half_minute_with_what_is_left(clock: Clock) -> None:
    assert said(command(clock, 960, 0.125, 960), "work") == [
        "work: row 240 of 960, 00:30 elapsed, 01:30 left",
        "work: row 480 of 960, 01:00 elapsed, 01:00 left",
        "work: row 720 of 960, 01:30 elapsed, 00:30 left",
        "work: row 960 of 960, 02:00 elapsed, 00:00 left",
    ]


def test_a_slow_step_has_a_line_of_its_own_and_no_total_is_made_up(clock: Clock) -> None:
    lines = said(command(clock, 2, 45, None), "work")
    assert lines == ["work: row 1, 00:45 elapsed", "work: row 2, 01:30 elapsed"]


def test_many_short_stages_together_are_told_of_as_well(clock: Clock) -> None:
    """Each lasts 20 seconds; a line is due after the second and the fourth."""
    assert said(command(clock, 0, 20, 1), "short") == ["short: row 1 of 1, 00:20 elapsed, 00:00 left"] * 2


def test_what_is_done_within_half_a_minute_leaves_no_line(clock: Clock) -> None:
    assert said(command(clock, 29, 1, 29), "work") == []
    clock.now += 1000  # the next command's half minute begins with it
    assert said(command(clock, 29, 1, 29), "work") == []


def test_quiet_leaves_no_line(clock: Clock) -> None:
    assert said(command(clock, 20, 10, 20), "work", "--quiet") == []


def test_from_python_there_are_no_lines(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    said(command(clock, 1, 1, 1), "work")
    assert len(list(progress.bar(clock.items(20, 10), "work", "row", 20))) == 20
    assert capsys.readouterr() == ("", "")


def test_a_terminal_has_bars(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    shown: list[object] = []

    def bar(items: object, **options: object) -> object:
        shown.append(options["disable"])
        return items

    monkeypatch.setattr("tqdm.tqdm", bar)
    with progress.reporting(quiet=False):
        assert len(list(progress.bar(clock.items(20, 10), "work", "row", 20))) == 20
    with progress.reporting(quiet=True):
        assert len(list(progress.bar(clock.items(20, 10), "work", "row", 20))) == 20
    assert shown == [None, True]
