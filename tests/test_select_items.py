"""Which rows a figure takes: each rule takes what it says, and what fits nothing is refused by its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from made_galleries import Asked, write_run

from hvx.cli import main
from hvx.errors import HvxError
from hvx.select_items import ItemFilter, agreement, select_items
from hvx.store.reader import RunReader

ASKED = [
    Asked("is it red ?", "yes", "yes", "yes/no", "is it"),
    Asked("how many ?", "2", "3", "number", "how many", agreeing=False),
    Asked("what color ?", "red", "Red ", "other", "what color"),
    Asked("what is it ?", "dog", "", "other", "what is"),
    Asked("is it blue ?", "yes", "no", "yes/no", "is it", agreeing=False),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("choose") / "run", ASKED)


@pytest.fixture(scope="module")
def reader(run: Path) -> RunReader:
    return RunReader(run)


def test_ids_are_taken_in_their_order(reader: RunReader) -> None:
    assert select_items(reader, ItemFilter(ids=(4, 1))) == [3, 0]


@pytest.mark.parametrize(
    ("choice", "taken"),
    [
        (ItemFilter(answer_types=("yes/no",)), {0, 4}),
        (ItemFilter(answer_types=("number", "other")), {1, 2, 3}),
        (ItemFilter(question_types=("is it", "what is")), {0, 3, 4}),
        (ItemFilter(right=True), {0, 2}),
        (ItemFilter(right=False), {1, 4}),
        (ItemFilter(right=False, answer_types=("yes/no",)), {4}),
    ],
)
def test_rows_are_of_the_types_and_kinds_asked_for(
    reader: RunReader, choice: ItemFilter, taken: set[int]
) -> None:
    assert set(select_items(reader, choice)) == taken


@pytest.mark.parametrize(
    ("choice", "fits"),
    [
        (ItemFilter(count=99), [0, 1, 2, 3, 4]),
        (ItemFilter(count=99, answer_types=("yes/no",)), [0, 4]),
        (ItemFilter(count=99, answer_types=("other", "number")), [1, 2, 3]),
        (ItemFilter(count=99, question_types=("is it", "what is")), [0, 3, 4]),
        (ItemFilter(count=99, question_types=("is it",), answer_types=("other", "yes/no")), [0, 4]),
        (ItemFilter(count=99, right=False, seed=3), [1, 4]),
        (ItemFilter(count=99, right=True, seed=4), [0, 2]),
        (ItemFilter(count=2, seed=5), [0, 1, 2, 3, 4]),
        (ItemFilter(), [0, 1, 2, 3, 4]),
    ],
)
def test_what_fits_comes_in_numpys_order_for_the_seed(
    reader: RunReader, choice: ItemFilter, fits: list[int]
) -> None:
    shuffled = np.random.default_rng(choice.seed).permutation(fits).tolist()
    chosen = select_items(reader, choice)
    assert chosen == shuffled[: choice.count]
    assert all(type(number) is int for number in chosen)


def test_without_a_choice_there_are_three_at_random_by_seed_0() -> None:
    assert ItemFilter() == ItemFilter((), (), (), None, "random", 3, 0)


def test_equal_agreements_stay_in_the_order_of_the_seed(reader: RunReader) -> None:
    agreeing = {0, 2, 3}
    for seed in range(5):
        shuffled = np.random.default_rng(seed).permutation(5).tolist()
        most = sorted(shuffled, key=lambda n: n not in agreeing)
        least = sorted(shuffled, key=lambda n: n in agreeing)
        assert select_items(reader, ItemFilter(order="agreement", count=5, seed=seed)) == most
        assert select_items(reader, ItemFilter(order="disagreement", count=5, seed=seed)) == least


def test_an_empty_heat_map_agrees_with_nothing(tmp_path: Path) -> None:
    bits = [0, 1, 2, 3, 0]
    asked = [replace(one, zero_gradient=n) for one, n in zip(ASKED, bits, strict=True)]
    reader = RunReader(write_run(tmp_path / "run", asked))
    assert [np.isnan(agreement(item)) for item in map(reader.__getitem__, range(5))] == [
        False, True, False, True, False
    ]  # fmt: skip
    assert set(select_items(reader, ItemFilter(order="agreement", count=2))) == {0, 2}
    assert select_items(reader, ItemFilter(order="disagreement", count=9))[0] == 4
    assert set(select_items(reader, ItemFilter(order="disagreement", count=9))) == {0, 2, 4}
    with pytest.raises(HvxError) as error:
        select_items(reader, ItemFilter(order="agreement", answer_types=("number",)))
    assert str(error.value) == (
        f"{reader.path}: the gradient of all that fit is zero; there is no agreement to choose by"
    )


def test_messages_name_the_run_the_value_and_what_there_is(reader: RunReader, tmp_path: Path) -> None:
    said = []
    for choice in (
        ItemFilter(ids=(1, 77)),
        ItemFilter(answer_types=("yes/noo",)),
        ItemFilter(question_types=("why",)),
        ItemFilter(right=True, answer_types=("number",)),
    ):
        with pytest.raises(HvxError) as error:
            select_items(reader, choice)
        said.append(str(error.value).removeprefix(f"{reader.path}: "))
    assert said == [
        "holds no explanation of question_id 77",
        "no answer_type 'yes/noo' (did you mean 'yes/no'?); the run has: number, other, yes/no",
        "no question_type 'why'; the run has: how many, is it, what color, what is",
        "no explanation fits what is asked for; ask for less at once",
    ]
    untyped = [replace(one, answer_type="") for one in ASKED]
    with pytest.raises(HvxError, match="no answer_type 'other'; the run knows no types"):
        select_items(RunReader(write_run(tmp_path / "run", untyped)), ItemFilter(answer_types=("other",)))


def test_agreement_comes_first_or_last_as_asked(reader: RunReader) -> None:
    assert set(select_items(reader, ItemFilter(order="agreement", count=3))) == {0, 2, 3}
    assert set(select_items(reader, ItemFilter(order="disagreement", count=2))) == {1, 4}
    assert [round(agreement(reader[n]), 3) for n in range(5)] == [1, -1, 1, 1, -1]


def test_the_lot_is_drawn_by_the_seed(reader: RunReader) -> None:
    drawn = [tuple(select_items(reader, ItemFilter(count=5, seed=seed))) for seed in range(20)]
    assert drawn == [tuple(select_items(reader, ItemFilter(count=5, seed=seed))) for seed in range(20)]
    assert len(set(drawn)) > 10
    assert all(sorted(one) == [0, 1, 2, 3, 4] for one in drawn)


@pytest.mark.parametrize(
    ("choice", "named"),
    [
        (ItemFilter(ids=(1, 77)), "no explanation of question_id 77"),
        (ItemFilter(answer_types=("yes/noo",)), "did you mean 'yes/no'"),
        (ItemFilter(question_types=("why",)), "no question_type 'why'"),
        (ItemFilter(right=True, answer_types=("number",)), "no explanation fits"),
    ],
)
def test_what_the_run_has_not_is_refused(reader: RunReader, choice: ItemFilter, named: str) -> None:
    with pytest.raises(HvxError, match=named):
        select_items(reader, choice)


def test_a_model_without_attention_has_no_agreement_to_choose_by(tmp_path: Path) -> None:
    reader = RunReader(write_run(tmp_path / "run", ASKED, glimpses=0))
    assert np.isnan(agreement(reader[0]))
    with pytest.raises(HvxError) as error:
        select_items(reader, ItemFilter(order="agreement"))
    assert str(error.value) == (
        f"{reader.path}: a model without attention; there is no agreement to choose by"
    )


def test_the_command_takes_the_rules_together(run: Path, tmp_path: Path) -> None:
    arguments = ["figure", str(run), "-o", str(tmp_path / "f.png"), "--only", "wrong"]
    done = CliRunner().invoke(main, [*arguments, "--by", "disagreement", "--rows", "9"])
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'f.png'}: 2 explanations\nquestion_id: 2, 5\n"


def test_ids_and_rules_do_not_go_together(run: Path, tmp_path: Path) -> None:
    arguments = ["figure", str(run), "-o", str(tmp_path / "f.png"), "--only", "wrong", "--id", "1"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert "--id 1: goes with no other choice of rows" in done.stderr
    assert not list(tmp_path.iterdir())
