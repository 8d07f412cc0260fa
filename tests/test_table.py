"""Tables as text: widths, wrapping, groups of columns, Markdown, and cells that would break either."""

from __future__ import annotations

import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvx.table import table

HEADER = ["method", "pointing game (n = 120)", "rank correlation ↓ (n = 120)", "deletion (n = 40)"]
ROWS = [
    ["proposed", "0.87 [0.80, 0.93]", "0.41 [0.30, 0.52]", "0.12 [0.10, 0.14] ▽"],
    ["Grad-CAM of the answer's logit at the last convolution", "0.9 [0.8, 1.0] ▲", "", "−0.11 [−0.2, 0.0]"],
]
CLAIMS = [["the map finds what is asked about", "yes", "0.87 of 120 questions, by chance 0.045, " * 3]]


def places(line: str) -> int:
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line
    )


@pytest.mark.parametrize("width", [60, 80])
def test_a_table_fits_the_width_and_loses_nothing(width: int) -> None:
    for header, rows in ((HEADER, ROWS), (["claim", "verdict", "measured"], CLAIMS)):
        text = table(header, rows, markdown=False, width=width)
        assert max(map(places, text.split("\n"))) <= width
        for word in " ".join([*header, *(cell for row in rows for cell in row)]).split():
            assert word in text


def test_numbers_stay_whole_and_columns_without_room_follow_below_the_first_again() -> None:
    text = table(HEADER, ROWS, markdown=False, width=60)
    first, second = text.split("\n\n")
    assert all(cell in text for row in ROWS for cell in row[1:])
    assert "proposed" in first and "proposed" in second
    assert "0.87 [0.80, 0.93]" in first and "0.12 [0.10, 0.14] ▽" in second


def test_exactly_this_is_printed() -> None:
    text = table(["name", "n", "what"], [["a", "7", "x y"], ["bb", "12", "日本"]], markdown=False, width=30)
    assert text == "name   n  what\n────  ──  ────\na      7  x y\nbb    12  日本"
    text = table(["name", "n"], [["a|b", "7"], ["c\\|d", "1,200"]], markdown=True)
    assert text == "| name | n |\n|---|---:|\n| a\\|b | 7 |\n| c\\\\\\|d | 1,200 |"


@pytest.mark.parametrize("markdown", [True, False])
def test_a_cell_cannot_act_on_the_terminal_or_make_a_line(markdown: bool) -> None:
    text = table(["a", "b"], [["x\x1b[2Jy", "one\ntwo\r\u202ethree"]], markdown=markdown, width=80)
    assert "\x1b" not in text and "\u202e" not in text and "\r" not in text
    assert "x\\x1b[2Jy" in text and "one two" in text
    assert len(text.split("\n")) == 3


def test_a_pipe_gets_markdown_and_a_terminal_its_own_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    assert table(HEADER, ROWS).startswith("| method | pointing game")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    text = table(HEADER, ROWS)
    assert "|" not in text and max(map(places, text.split("\n"))) <= 60


def test_what_is_no_table_is_refused_and_an_empty_one_has_its_header() -> None:
    with pytest.raises(ValueError, match="1 cells in a row of a table with 2 columns"):
        table(["a", "b"], [["1"]])
    assert table(["a", "b"], [], markdown=True) == "| a | b |\n|---|---|"
    assert table(["a", "b"], [], markdown=False, width=80) == "a  b\n─  ─"


CELLS = st.text(alphabet="ab|\\ 日é\n0123[],.-", max_size=60)


@given(st.integers(1, 6).flatmap(lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n), min_size=1)))
def test_any_table_fits_and_keeps_its_characters(cells: list[list[str]]) -> None:
    header, *rows = cells
    text = table(header, rows, markdown=False, width=40)
    assert max(map(places, text.split("\n"))) <= 40
    wanted = sorted("".join("".join(cell.split()) for row in cells for cell in row))
    printed = sorted(re.sub(r"[\s─]", "", text))
    if "\n\n" not in text:
        assert printed == wanted
    markdown = table(header, rows, markdown=True).split("\n")
    assert len(markdown) == len(cells) + 1
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in markdown} == {len(header) + 1}


def test_markdown_sees_no_html_in_a_cell() -> None:
    assert (
        table(["a|b"], [["x\ny\x1b[2J<b>|"]], markdown=True) == "| a\\|b |\n|---|\n| x y\\x1b[2J&lt;b>\\| |"
    )
