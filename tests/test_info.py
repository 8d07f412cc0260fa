"""``hvx info`` on a run: what it says of explanations that say nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from conftest import hvx
from made_galleries import write_run
from test_gallery import asked


def test_explanations_that_are_zero_everywhere_are_counted(tmp_path: Path) -> None:
    bits = [0, 1, 3, 2, 3, 1]
    run = write_run(
        tmp_path / "run", [replace(one, zero_gradient=n) for one, n in zip(asked(6), bits, strict=True)]
    )
    done = hvx("info", run)
    assert done.returncode == 0
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("no gradient:")]
    assert line.endswith(" Eq. 2 (image) of 4, Eq. 3 (words) of 3")


def test_words_that_the_model_does_not_know_are_counted(tmp_path: Path) -> None:
    questions = asked(3)  # is it N ?
    questions[1] = replace(questions[1], unknown=("it", "1"))
    done = hvx("info", write_run(tmp_path / "run", questions))
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("unknown:")]
    assert line.split(maxsplit=1)[1] == "2 of 12 tokens, in 1 questions"
