"""scripts/word_deletion.py and its table: what an answer's probability loses without a word."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import REPOSITORY, Tiny
from scipy.stats import spearmanr

import hvx
from hvx.store.reader import RunReader

sys.path.insert(0, str(REPOSITORY / "scripts"))
from measure_textual import main as measure_textual
from word_deletion import deletion_losses


def test_losses_are_those_of_questions_asked_without_the_word(tiny: Tiny, finished_run: Path) -> None:
    """Against the Python API, which is given each shorter question as text."""
    explainer = hvx.Explainer(hvx.load_model(tiny.root / "model.safetensors", device="cpu"))
    with RunReader(finished_run) as reader:
        numbers = [20, 3, 11]
        losses = deletion_losses(reader, numbers)
        assert sorted(losses) == sorted(numbers)
        compared = 0
        for number, loss in losses.items():
            item = reader[number]
            assert len(loss) == len(item.tokens)
            image = tiny.root / "scenes" / "images" / item.image_path
            texts = [" ".join(item.tokens[:t] + item.tokens[t + 1 :]) for t in range(len(loss))]
            whole, *shorter = explainer.explain_all(image, [item.question, *texts])
            before = math.log(dict(whole.answers)[item.answer])
            for one, change in zip(shorter, loss, strict=True):
                after = dict(one.answers).get(item.answer)
                if after is not None:
                    assert change == pytest.approx(before - math.log(after), abs=1e-4)
                    compared += 1
        assert compared > 10


def test_the_table_has_each_reading_beside_its_own_networks_losses(finished_run: Path) -> None:
    done = CliRunner().invoke(measure_textual, [f"mlb={finished_run}", "--deletions", "12"])
    assert done.exit_code == 0, done.output
    rows = [line.split("|")[1:-1] for line in done.output.splitlines() if line.startswith("| mlb: z |")]
    shown = float(rows[-1][1].split()[0])
    count = int(done.output.split("Leaving out a word, in ")[1].split()[0])
    with RunReader(finished_run) as reader:
        from hvx.measure.sample import draw

        numbers = draw(reader.column("image_id"), 12, 0)
        assert len(numbers) == count
        losses = deletion_losses(reader, numbers)
        each = [spearmanr(reader[number].token_z, losses[number])[0] for number in numbers]
    assert shown == pytest.approx(np.mean(each), abs=6e-4)


@pytest.mark.parametrize(
    ("names", "reason"), [(["a", "a"], "two runs have one name"), (["a: z"], "expected NAME=RUN")]
)
def test_names_that_would_mix_two_runs_are_refused(finished_run: Path, names: list[str], reason: str) -> None:
    done = CliRunner().invoke(measure_textual, [f"{name}={finished_run}" for name in names])
    assert done.exit_code == 2 and reason in done.output


def test_without_deletions_no_network_is_needed(finished_run: Path) -> None:
    done = CliRunner().invoke(measure_textual, [f"mlb={finished_run}", "--deletions", "0"])
    assert done.exit_code == 0 and "Leaving out" not in done.output
