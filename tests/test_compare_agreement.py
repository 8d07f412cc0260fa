"""Agreement of maps and words of two runs, and its controls, against slow versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from made_compare import Made
from scipy.stats import spearmanr

from hvx.compare import agreement, controls
from hvx.compare.agreement import (
    attention_agreement,
    cell_means,
    heatmap_agreement,
    map_ranks,
    token_agreement,
)
from hvx.compare.compare import ATTENTION, HEATMAP, WORDS, compare_runs
from hvx.compare.controls import other_images, other_questions
from hvx.compare.join import Joined, join
from hvx.measure.metrics.agreement import pooled, rank_correlation
from hvx.measure.metrics.bootstrap import mean
from hvx.measure.metrics.scores import LATTICE
from hvx.store.heatmaps import to_8_bits
from hvx.store.reader import RunReader

Joins = Callable[..., Joined]


@pytest.fixture
def joins(tmp_path: Path) -> Iterator[Joins]:
    """Writes made-up runs and joins them."""
    with ExitStack() as stack:

        def made(*runs: Made) -> Joined:
            paths = [run.write(tmp_path / name) for run, name in zip(runs, "pqr", strict=False)]
            return join([stack.enter_context(RunReader(path)) for path in paths])

        yield made


def test_cells_are_those_of_hvx_measure() -> None:
    assert (agreement.GRID, agreement.GRID) == LATTICE
    maps = np.random.default_rng(0).random((3, 28, 42))
    for own, found in zip(maps, cell_means(maps, (14, 14)), strict=True):
        assert found == pytest.approx(pooled(own, (14, 14)), abs=1e-12)


def test_a_pixel_in_two_cells_counts_in_both_by_its_share() -> None:
    """Against a picture enlarged until each pixel of it lies in one cell alone."""
    maps = np.random.default_rng(1).random((2, 14, 10))
    enlarged = maps.repeat(13, 1).repeat(4, 2)
    slow = enlarged.reshape(2, 13, 14, 4, 10).mean((2, 4))
    assert cell_means(maps, (13, 4)) == pytest.approx(slow, abs=1e-12)


@pytest.mark.parametrize("values", [1 << 22, 1])
def test_heat_maps_of_two_sizes_and_orders(
    joins: Joins, values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement, "_VALUES", values)
    first, second = Made(range(8), 0, side=28), Made(range(8), 1, side=56)
    order = [6, 2, 1, 7, 0, 5]
    shuffled = {name: column[order] for name, column in second.columns().items()}
    joined = joins(first, Made(order, 1, given=shuffled))
    found = heatmap_agreement(joined)
    assert joined.question_ids == sorted(order)
    for place, number in enumerate(sorted(order)):
        one, other = (pooled(run.columns()["heatmap"][number], (14, 14)) for run in (first, second))
        assert found[place] == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic, abs=1e-9)
        assert found[place] == pytest.approx(rank_correlation(one, other), abs=1e-9)
    assert heatmap_agreement(joined, 1, 0) == pytest.approx(found)


def test_a_run_of_smaller_maps_sets_the_grid(joins: Joins) -> None:
    first, second = Made(range(3), 0, side=28), Made(range(3), 1, side=7)
    found = heatmap_agreement(joins(first, second))
    maps = [run.columns()["heatmap"].astype(float) for run in (first, second)]
    slow = [rank_correlation(pooled(one, (7, 7)), other) for one, other in zip(*maps, strict=True)]
    assert found == pytest.approx(slow, abs=1e-9)


def test_maps_of_8_bits(joins: Joins) -> None:
    first = Made(range(4))
    values, factor = to_8_bits(first.columns()["heatmap"].astype(np.float32))
    small = Made(range(4), 1, given=first.columns() | {"heatmap": values, "heatmap_scale": factor})
    assert (heatmap_agreement(joins(first, small)) > 0.99).all()


def test_attention_is_summed_over_glimpses_and_brought_to_the_smaller_grid(joins: Joins) -> None:
    first, second = Made(range(5), 0, grid=13), Made(range(5), 1, grid=7)
    found = attention_agreement(joins(first, second))
    for place in range(5):
        one, other = (run.columns()["attention"][place].sum(0, dtype=float) for run in (first, second))
        slow = cell_means(one[None], (7, 7))[0]
        assert found[place] == pytest.approx(spearmanr(slow.ravel(), other.ravel()).statistic, abs=1e-9)


def test_constant_maps_have_no_correlation(joins: Joins) -> None:
    """Also where the grid does not divide them: rounding must not make ranks of equal values."""
    first, second = Made(range(4), 0, side=28, grid=14), Made(range(4), 1, side=28, grid=13)
    blank = second.columns()
    blank["heatmap"][1] = 0
    blank["attention"][2] = np.float32(1 / 169)
    uniform = first.columns()["attention"].copy()
    uniform[3] = np.float32(0.3)
    first.given["attention"] = uniform
    joined = joins(first, Made(range(4), 1, grid=13, given=blank))
    assert np.isnan(heatmap_agreement(joined)).tolist() == [False, True, False, False]
    assert np.isnan(attention_agreement(joined)).tolist() == [False, False, True, True]
    ramp = np.tile(
        np.arange(14.0), (1, 14, 1)
    )  # rows that are equal stay so, whatever they are multiplied by
    ranks = map_ranks(ramp * 0.1, (13, 13)).reshape(13, 13)
    assert (ranks == ranks[0]).all()


def test_without_attention_there_is_no_agreement_of_it(joins: Joins) -> None:
    joined = joins(Made(range(4)), Made(range(4), 1, grid=None))
    assert np.isnan(attention_agreement(joined)).all()
    found = {one.kind: one for one in compare_runs(joined.runs).pairs[0].agreement}
    assert found[ATTENTION].none == "B without attention" and not found[ATTENTION].same.known
    assert found[HEATMAP].same.n == 4


def test_maps_of_other_parts_are_left_out_with_the_reason(joins: Joins) -> None:
    joined = joins(Made(range(4)), Made(range(4), 1, crop={"square": "whole"}))
    assert np.isnan(heatmap_agreement(joined)).all() and np.isnan(attention_agreement(joined)).all()
    found = {one.kind: one for one in compare_runs(joined.runs).pairs[0].agreement}
    assert (
        "square: 'center' and 'whole'" in str(found[HEATMAP].none)
        and found[HEATMAP].none == found[ATTENTION].none
    )
    assert found[WORDS].same.n == 4


def test_a_run_that_sees_another_part_does_not_keep_the_others_from_being_compared(joins: Joins) -> None:
    joined = joins(Made(range(4)), Made(range(4), 1, crop={"square": "whole"}), Made(range(4), 2))
    assert np.isnan(heatmap_agreement(joined)).all() and np.isnan(heatmap_agreement(joined, 1, 2)).all()
    first, second = compare_runs(joined.runs).pairs
    assert first.agreement[0].none and second.agreement[0].same.n == 4
    assert second.agreement[0].values == pytest.approx(heatmap_agreement(joined, 0, 2))


def test_ranks_of_a_very_large_grid_fit_their_type(joins: Joins) -> None:
    """Twice the rank of the last of 200 · 200 cells does not fit 16 bits."""
    ramps = np.arange(2 * 200 * 200, dtype=np.float32).reshape(1, 2, 200, 200).repeat(2, 0)
    runs = [Made(range(2), seed, grid=200, given={"attention": ramps}) for seed in (0, 1)]
    assert attention_agreement(joins(*runs)) == pytest.approx([1, 1])
    joined = joins(runs[0], Made(range(2), 1, grid=200, given={"attention": ramps[..., ::-1, ::-1].copy()}))
    assert attention_agreement(joined) == pytest.approx([-1, -1], abs=1e-3)


def test_words_agree_only_where_the_tokens_are_the_same(joins: Joins) -> None:
    first, second = Made(range(7), 0), Made(range(7), 1)
    columns = second.columns()
    columns["tokens"][1] = ["what", "is", "one", "?"]  # other tokens, as many
    columns["tokens"][2], columns["length"][2] = ["what", "is", "2", ""], 3  # fewer
    columns["token_z"][3] = 0
    one = first.columns()
    for own in (one, columns):
        own["tokens"][4], own["length"][4] = ["what", "", "", ""], 1
    columns["token_z"][4:, 1:] = np.nan
    columns["token_z"][5:] = [[1, 1, 2, 3], [3, 2, 2, 1]]
    joined = joins(Made(range(7), 0, given=one), Made(range(7), 1, given=columns))
    found = token_agreement(joined)
    assert np.isnan(found).tolist() == [False, True, True, True, True, False, False]
    for place in (0, 5, 6):
        slow = spearmanr(one["token_z"][place], columns["token_z"][place]).statistic
        assert found[place] == pytest.approx(slow, abs=1e-9)
    words = compare_runs(joined.runs).pairs[0].agreement[-1]
    assert words.left_out == {
        "tokens that differ between the runs": 2,
        "fewer than two tokens": 1,
        "z-scores that are all equal": 1,
    }
    assert words.same.n == 3


def _with_images(digests: list[str], texts: list[str]) -> Made:
    own = {"image_digest": np.array(digests, object), "question": np.array(texts, object)}
    return Made(range(len(digests)), given=own)


def test_another_question_is_of_the_same_image_and_of_another_text(joins: Joins) -> None:
    digests, texts = ["a"] * 4 + ["b", "b", "c"], ["x", "x", "y", "z", "x", "x", "y"]
    first = _with_images(digests, texts)
    joined = joins(first, Made(range(7), 1, given=dict(first.given)))
    drawn = [other_questions(joined, seed) for seed in range(60)]
    each = [{int(own[place]) for own in drawn} for place in range(7)]
    assert each == [{2, 3}, {2, 3}, {0, 1, 3}, {0, 1, 2}, {-1}, {-1}, {-1}]
    kind = np.array([0, 0, 1, 0, 0, 0, 0])
    each = [{int(other_questions(joined, seed, kind)[place]) for seed in range(30)} for place in range(7)]
    assert each == [{3}, {3}, {-1}, {0, 1}, {-1}, {-1}, {-1}]
    assert (other_questions(joined, 5) == other_questions(joined, 5)).all()


@pytest.mark.parametrize("tries", [64, 0])
def test_another_image_is_never_the_same(joins: Joins, tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls, "_TRIES", tries)
    digests, texts = ["a"] * 4 + ["b", "b", "c"], ["x", "x", "y", "z", "x", "x", "y"]
    first = _with_images(digests, texts)
    joined = joins(first, Made(range(7), 1, given=dict(first.given)))
    drawn = [other_images(joined, seed) for seed in range(80)]
    each = [{int(own[place]) for own in drawn} for place in range(7)]
    assert each == [{4, 5, 6}] * 4 + [{0, 1, 2, 3, 6}] * 2 + [{0, 1, 2, 3, 4, 5}]
    kind = np.array([0, 0, 0, 0, 0, 0, 1])
    each = [{int(other_images(joined, seed, kind)[place]) for seed in range(40)} for place in range(7)]
    assert each == [{-1}, {-1}, {4, 5}, {4, 5}, {2, 3}, {2, 3}, {-1}]  # and of another text


def test_on_one_image_there_is_no_other(joins: Joins) -> None:
    first = _with_images(["a"] * 3, ["x", "y", "z"])
    joined = joins(first, Made(range(3), 1, given=dict(first.given)))
    assert (other_images(joined, 0) == -1).all()
    one = compare_runs(joined.runs).pairs[0].agreement[0]
    assert one.same.n == one.other_question.n == 3 and not one.same.bounded
    assert not one.other_image.known


def test_the_means_are_those_of_loops_over_questions(joins: Joins) -> None:
    first, second = Made(range(12), 0), Made(range(12), 1)
    columns = second.columns()
    columns["heatmap"][4] = 0
    joined = joins(first, Made(range(12), 1, given=columns))
    found = compare_runs(joined.runs, seed=3).pairs[0].agreement
    kinds = {one.kind: one for one in found}
    assert list(kinds) == [HEATMAP, ATTENTION, WORDS]
    question, image = other_questions(joined, 3), other_images(joined, 3)
    maps = [np.stack([pooled(m, (14, 14)) for m in own["heatmap"]]) for own in (first.columns(), columns)]

    def slow(place: int, other: int) -> float:
        return float(spearmanr(maps[0][place].ravel(), maps[1][other].ravel()).statistic)

    told = [place for place in range(12) if place != 4]
    same = {place: slow(place, place) for place in told}
    control = {place: slow(place, int(question[place])) for place in told if question[place] != 4}
    elsewhere = {place: slow(place, int(image[place])) for place in told if image[place] != 4}
    above = {place: same[place] - value for place, value in control.items()}
    one = kinds[HEATMAP]
    pairs = (
        (one.same, same),
        (one.other_question, control),
        (one.other_image, elsewhere),
        (one.above, above),
    )
    for estimate, values in pairs:
        expected = mean(list(values.values()), joined.images[list(values)], 3)
        assert estimate.n == expected.n == len(values)
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
            (expected.value, expected.low, expected.high), abs=1e-9
        )
    assert one.left_out == {"a map that is the same everywhere (its gradient is zero)": 1}
    assert (
        control.keys() != same.keys()
    )  # the question beside 4 has no control: the paired difference leaves it out


def test_each_later_run_is_compared_with_the_first(joins: Joins) -> None:
    joined = joins(Made(range(4)), Made(range(4), 1), Made(range(4), 2))
    pairs = compare_runs(joined.runs).pairs
    assert [pair.other for pair in pairs] == [1, 2]
    for pair in pairs:
        kinds = {one.kind: one.values for one in pair.agreement}
        assert kinds[HEATMAP] == pytest.approx(heatmap_agreement(joined, 0, pair.other))
        assert kinds[ATTENTION] == pytest.approx(attention_agreement(joined, 0, pair.other))
        assert kinds[WORDS] == pytest.approx(token_agreement(joined, 0, pair.other))


@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_reader_gives_a_dataset_in_pieces(joins: Joins, size: int) -> None:
    joined = joins(Made(range(7)), Made(range(7), 1))
    run = joined.runs[0]
    for name in ("question_id", "question", "tokens", "heatmap", "token_z"):
        pieces = list(run.chunks(name, size))
        assert len(pieces) == run.chunk_count(size)
        assert max(len(values) for _, values in pieces) <= size
        whole = run.column(name)
        for start, values in pieces:
            np.testing.assert_array_equal(values, whole[start : start + len(values)])
            assert values.dtype == whole.dtype
        assert sum(len(values) for _, values in pieces) == 7
    wanted = np.arange(7) == 4
    ((start, values),) = run.chunks("probability", size, wanted)
    assert run.column("probability")[4] in values and start <= 4 < start + len(values)
    assert run.chunk_count(size, wanted) == 1
    assert run.item_values("attention") == 2 * 7 * 7 and run.attention_size == (7, 7)
