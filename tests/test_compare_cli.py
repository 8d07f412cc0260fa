"""``hvx compare`` as a user gives it: tables, JSON, rows, lists of ids, and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import pty
import struct
import subprocess
import sys
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ
from typing import Any

import numpy as np
import pytest
from conftest import hvx
from made_compare import Made

from hvx.compare.answers import compare_answers
from hvx.compare.join import join
from hvx.measure.metrics.agreement import pooled, rank_correlation
from hvx.store.reader import RunReader
from hvx.table import _width

TRUTHS = ["yes", "no", "2", "3", "red", "", "cat", "dog"]
FIRST = ["yes", "No ", "2", "4", "blue", "a", "cat", "cow"]
SECOND = ["yes", "no", "1", "3", "green", "b", "CAT", "cow"]
"""Right: A 0, 1, 2, 6; B 0, 1, 3, 6. The same: 0, 1, 6, 7. Unknown: 5."""
TYPES = ["yes/no", "yes/no", "number", "number", "other", "other", "other", "other"]


def run(path: Path, answers: list[str], seed: int, truths: list[str] = TRUTHS, **more: Any) -> Path:
    given = {"answer": answers, "ground_truth": truths, "answer_type": TYPES}
    columns = {name: np.array(values, object) for name, values in given.items()}
    return Made(range(20, 28), seed, given=columns, **more).write(path)


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    return [run(tmp_path / "mlb" / "run", FIRST, 0), run(tmp_path / "dan" / "run", SECOND, 1)]


def rows(document: str, start: str) -> list[list[str]]:
    """The cells of the Markdown rows after a heading, without header and rule."""
    lines = document.split(f"## {start}\n\n", 1)[1].split("\n\n", 1)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_into_a_pipe_the_report_is_markdown(two: list[Path]) -> None:
    done = hvx("compare", *two)
    assert done.returncode == 0 and done.stderr == ""
    document = done.stdout
    assert "| A | mlb/run | 8 |\n| B | dan/run | 8 |" in document
    assert "In common: 8 questions on 4 images; only these count." in document
    accuracy = rows(document, "Accuracy (exact match)")
    assert [row[:3] for row in accuracy] == [
        ["A", "mlb/run", "0.571"],  # 4 of the 7 that have a ground truth
        ["B", "dan/run", "0.571"],
        ["B − A", "difference", "0.000"],
    ]
    assert {row[4] for row in accuracy} == {"7"}
    assert rows(document, "Answers of A and B") == [
        ["all", "8", "4", "4", "1", "1", "3", "2", "1"],
        ["other", "4", "2", "2", "0", "0", "1", "2", "1"],
        ["number", "2", "0", "2", "1", "1", "0", "0", "0"],
        ["yes/no", "2", "2", "0", "0", "0", "2", "0", "0"],
    ]
    agreement = rows(document, "Rank correlation of A and B")
    assert [row[0] for row in agreement if row[0]] == ["heat map 14×14", "summed attention 7×7", "token z"]
    assert [row[1] for row in agreement] == [
        "same question",
        "other question",
        "difference",
        "other image",
    ] * 3
    assert "- accuracy leaves out 1 question(s) without a known ground truth" in document


def test_json_is_one_object_of_the_same_numbers(two: list[Path]) -> None:
    def refuse(constant: str) -> float:
        raise AssertionError(constant)

    found = json.loads(hvx("compare", *two, "--json").stdout, parse_constant=refuse)
    assert [(one["label"], one["name"], one["explanations"]) for one in found["runs"]] == [
        ("A", "mlb/run", 8),
        ("B", "dan/run", 8),
    ]
    assert found["metric"] == "exact match" and (found["questions"], found["images"]) == (8, 4)
    assert found["runs"][0]["accuracy"]["mean"] == pytest.approx(4 / 7)
    (pair,) = found["pairs"]
    difference = pair["accuracy_difference"]  # 0 in every draw: the two that differ are on one image
    assert difference == {"mean": 0, "low": 0, "high": 0, "n": 7}
    assert pair["answers"] == {
        "questions": 8, "same": 4, "changed": 4, "only_a_correct": 1, "only_b_correct": 1, "both_correct": 3,
        "neither_correct": 2, "unknown": 1,
    }  # fmt: skip
    assert pair["answers_by_type"]["number"]["only_b_correct"] == 1
    heatmap = pair["rank_correlation"]["heatmap"]
    assert heatmap["grid"] == [14, 14] and heatmap["same_question"]["n"] == 8 and heatmap["none"] is None
    only = {"only-a-correct": 1, "only-b-correct": 1}
    assert found["groups"] == {"same": 4, "changed": 4, **only, "all-correct": 3, "none-correct": 2}
    again = json.loads(hvx("compare", *two, "--json", "--seed", 1).stdout)
    other = again["pairs"][0]["rank_correlation"]["heatmap"]
    assert other["same_question"]["mean"] == heatmap["same_question"]["mean"]
    assert other["another_image"] != heatmap["another_image"]


def test_a_folder_gets_the_report_and_a_row_for_each_question(two: list[Path], tmp_path: Path) -> None:
    done = hvx("compare", *two, "-o", tmp_path / "out")
    assert f"{tmp_path / 'out' / 'compare.md'}: 8 questions compared" in done.stdout
    report = (tmp_path / "out" / "compare.md").read_text()
    assert done.stdout.startswith(report.rstrip("\n"))
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["questions"] == 8
    with (tmp_path / "out" / "questions.csv").open(newline="") as stream:
        found = list(csv.DictReader(stream))
    assert [row["question_id"] for row in found] == [str(number) for number in range(20, 28)]
    assert [row["changed"] for row in found] == list("00111100")
    assert [row["correct_a"] for row in found] == ["1", "1", "1", "0", "0", "", "1", "0"]
    assert [row["correct_b"] for row in found] == ["1", "1", "0", "1", "0", "", "1", "0"]
    assert [row["answer_b"] for row in found] == SECOND and found[1]["answer_a"] == "No "
    assert all(-1 <= float(row["heatmap_correlation_ab"]) <= 1 for row in found)
    assert {"attention_correlation_ab", "token_z_correlation_ab", "probability_a"} <= set(found[0])


@pytest.mark.parametrize(
    ("group", "ids"),
    [
        ("same", "20 21 26 27"),
        ("changed", "22 23 24 25"),
        ("only-a-correct", "22"),
        ("only-b-correct", "23"),
        ("all-correct", "20 21 26"),
        ("none-correct", "24 27"),
    ],
)
def test_lists_of_ids_are_ids_alone(two: list[Path], group: str, ids: str) -> None:
    assert hvx("compare", *two, "--list", group).stdout.split("\n") == [*ids.split(), ""]


def test_lists_of_three_runs(two: list[Path], tmp_path: Path) -> None:
    third = run(tmp_path / "mrn" / "run", ["yes", "yes", "2", "4", "red", "c", "cow", "cow"], 2)
    groups = {
        "only-c-correct": "24",
        "only-a-correct": "",
        "changed": "21 22 23 24 25 26",
        "all-correct": "20",
    }
    for group, ids in groups.items():
        assert hvx("compare", *two, third, "--list", group).stdout.split() == ids.split()
    document = hvx("compare", *two, third, "--no-maps").stdout
    assert len(rows(document, "Accuracy (exact match)")) == 5
    assert rows(document, "Answers of A and C")[0] == ["all", "8", "4", "4", "2", "1", "2", "2", "1"]
    assert {row[0] for row in rows(document, "Rank correlation of A and C")} == {"token z", ""}


def test_ids_by_how_much_heat_maps_agree(two: list[Path]) -> None:
    with RunReader(two[0]) as one, RunReader(two[1]) as other:
        pairs = [(one[n].heatmap, other[n].heatmap) for n in range(2, 6)]
    values = [rank_correlation(*(pooled(map, (14, 14)) for map in pair)) for pair in pairs]
    expected = [str(22 + place) for place in np.argsort(values)]
    up = hvx("compare", *two, "--list", "changed", "--by", "disagreement").stdout.split()
    down = hvx("compare", *two, "--list", "changed", "--by", "agreement").stdout.split()
    assert up == expected == down[::-1] and expected != sorted(expected)


def test_an_empty_list_says_so_on_stderr(two: list[Path], tmp_path: Path) -> None:
    same = run(tmp_path / "again", FIRST, 3)
    done = hvx("compare", two[0], same, "--list", "changed")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "no question in common is 'changed'\n"


def test_what_is_unknown_is_none_and_never_nan(tmp_path: Path) -> None:
    blank = np.zeros((8, 28, 28), np.float16)
    made = Made(range(20, 28), 1, given={"heatmap": blank}, grid=None).columns()
    first = run(tmp_path / "p", FIRST, 0, truths=[""] * 8)
    columns = {
        "answer": np.array(SECOND, object),
        "ground_truth": np.array([" "] * 8, object),
        "heatmap": blank,
    }
    second = Made(range(20, 28), 1, given=made | columns, grid=None).write(tmp_path / "q")
    done = hvx("compare", first, second)
    assert done.returncode == 0 and "nan" not in done.stdout.lower()
    assert all(row[2:] == ["none", "", "0"] for row in rows(done.stdout, "Accuracy (exact match)"))
    agreement = rows(done.stdout, "Rank correlation of A and B")
    assert [row[2:] for row in agreement[:2]] == [["none", "", "0"]] * 2
    assert (
        "heat map, A and B: none (8 with a map that is the same everywhere (its gradient is zero))"
        in done.stdout
    )
    assert "summed attention, A and B: none (B without attention)" in done.stdout
    found = json.loads(hvx("compare", first, second, "--json").stdout)
    assert found["runs"][0]["accuracy"] is None and found["pairs"][0]["accuracy_difference"] is None
    assert found["pairs"][0]["rank_correlation"]["heatmap"]["same_question"] is None


def test_a_ground_truth_that_one_run_knows_counts_and_two_different_ones_do_not(tmp_path: Path) -> None:
    first = run(tmp_path / "p", FIRST, 0, truths=["", *TRUTHS[1:]])
    second = run(tmp_path / "q", SECOND, 1, truths=[*TRUTHS[:2], "two", *TRUTHS[3:]])
    with RunReader(first) as one, RunReader(second) as other:
        found = compare_answers(join([one, other]))
    assert found.truths.tolist() == ["yes", "no", "", *TRUTHS[3:]] and found.disputed == 1
    assert found.known.tolist() == [True, True, False, True, True, False, True, True]
    assert "ground truth of 1 question(s) differs between the runs" in hvx("compare", first, second).stdout


def test_what_is_refused_is_said_in_one_line(two: list[Path], tmp_path: Path) -> None:
    far = Made([1, 2]).write(tmp_path / "far")
    cases = [
        ((*two, "--list", "only-c-correct"), "--list only-c-correct: no such group (did you mean 'only-"),
        ((*two, "--by", "agreement"), "--by: the order of --list, which is not given"),
        ((*two, "--list", "same", "--json"), "--list: prints question_ids alone; leave out --json"),
        ((two[0],), "1 run(s) to compare; expected 2 to 26"),
        ((two[0], two[0].parent), "given twice; a run is compared with another one"),
        ((two[0], far), "the runs have no question_id in common"),
        ((two[0], tmp_path / "nowhere"), "nowhere: no such run folder"),
    ]
    for arguments, says in cases:
        done = hvx("compare", *arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert says in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_on_a_terminal_the_tables_fit_80_columns(tmp_path: Path) -> None:
    long = "a_rather_long_name_of_a_run_that_would_never_fit_beside_all_of_the_numbers_of_its_row"
    paths = [run(tmp_path / f"{number}{long}" / "run", FIRST, number) for number in range(2)]
    leader, follower = pty.openpty()
    ioctl(follower, TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "hvx", "compare", *map(str, paths)]
    with subprocess.Popen(command, stdout=follower, stderr=subprocess.PIPE, env=environment) as process:
        os.close(follower)
        pieces = []
        while True:
            try:
                piece = os.read(leader, 4096)
            except OSError:  # Linux: the other end is closed
                break
            if not piece:
                break
            pieces.append(piece)
        assert process.wait() == 0
    os.close(leader)
    lines = b"".join(pieces).decode().replace("\r", "").splitlines()
    assert max(map(_width, lines)) <= 80
    assert "Accuracy (exact match)" in lines and not any(line.startswith("|") for line in lines)
    assert any(line.startswith("summed attention 7×7") for line in lines)
