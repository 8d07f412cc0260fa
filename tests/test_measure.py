"""The measures, on maps and rows whose answer is known."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.stats import spearmanr

from hvx.config import SplitConfig
from hvx.data.object_masks import ObjectTable
from hvx.data.questions import read_questions
from hvx.data.scenes import PARTS_OF_SPEECH, image_name, write_scenes
from hvx.data.tokenize import tokenize_nltk
from hvx.errors import HvxError
from hvx.measure.metrics.agreement import pooled, rank_correlation
from hvx.measure.metrics.localization import points_inside
from hvx.measure.metrics.words import content_and_function, is_standardized, mean_z
from hvx.reproduce_checks import Check, as_json, as_table, check_run
from hvx.store.reader import Item, RunReader

PRINTED = Path(__file__).parents[2] / "shared" / "paper" / "printed-zscores.json"
HALF_A_PRINTED_DIGIT = 0.5e-4
SCENE = 64
LATTICE = 8


# Localization


def region(shape: tuple[int, int] = (32, 48)) -> np.ndarray:
    inside = np.zeros(shape, bool)
    inside[5:15, 20:40] = True
    return inside


def test_a_map_that_is_the_region_points_inside_and_its_inverse_does_not() -> None:
    inside = region()
    assert points_inside(inside.astype(float), inside)
    assert not points_inside(1 - inside.astype(float), inside)


@pytest.mark.parametrize("place", [(0, 0), (31, 47), (0, 47), (31, 0), (14, 39), (13, 20)])
def test_a_map_of_pixels_points_at_its_largest_pixel(place: tuple[int, int]) -> None:
    saliency = np.random.default_rng(0).random((32, 48))
    saliency[place] = 2
    only = np.zeros((32, 48), bool)
    only[place] = True
    assert points_inside(saliency, only)
    assert not points_inside(saliency, ~only)


@pytest.mark.parametrize("size", [8, 16, 20, 100, 112])
def test_a_lattice_points_at_the_center_of_its_largest_cell(size: int) -> None:
    for row in range(LATTICE):
        for column in range(LATTICE):
            saliency = np.zeros((LATTICE, LATTICE))
            saliency[row, column] = 1
            center = np.zeros((size, size), bool)
            center[int((row + 0.5) * size / LATTICE), int((column + 0.5) * size / LATTICE)] = True
            assert points_inside(saliency, center)
            assert not points_inside(saliency, ~center)


def test_a_lattice_and_its_enlargement_point_at_the_same_place() -> None:
    inside = region((64, 64))
    for seed in range(20):
        grid = np.random.default_rng(seed).random((8, 8))
        enlarged = np.kron(grid, np.ones((8, 8)))
        enlarged[4::8, 4::8] += 0.001
        assert points_inside(grid, inside) == points_inside(enlarged, inside)


@settings(deadline=None)
@given(
    arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.floats(0, 1, width=32)),
    array_shapes(min_dims=2, max_dims=2, max_side=40),
)
def test_every_map_but_a_constant_one_points_somewhere_on_the_picture(
    saliency: np.ndarray, shape: tuple[int, ...]
) -> None:
    assert points_inside(saliency, np.ones(shape, bool)) == (len(np.unique(saliency)) > 1)
    assert not points_inside(saliency, np.zeros(shape, bool))


# Agreement


def test_equal_order_correlates_by_1_and_inverse_order_by_minus_1() -> None:
    one = np.random.default_rng(0).random((6, 5))
    assert rank_correlation(one, np.exp(5 * one)) == pytest.approx(1, abs=1e-12)
    assert rank_correlation(one, -(one**3)) == pytest.approx(-1, abs=1e-12)


@pytest.mark.parametrize("constant", [np.zeros((3, 4)), np.full((3, 4), 7.0)])
def test_a_constant_map_correlates_by_0(constant: np.ndarray) -> None:
    other = np.arange(12.0).reshape(3, 4)
    assert rank_correlation(constant, other) == 0
    assert rank_correlation(other, constant) == 0
    assert rank_correlation(constant, constant) == 0


@pytest.mark.parametrize("levels", [2, 3, 10, 1000])
def test_rank_correlation_is_spearmans_with_ties(levels: int) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        one, other = rng.integers(0, levels, (2, 7, 9)).astype(float)
        wanted = spearmanr(one.ravel(), other.ravel()).statistic
        assert rank_correlation(one, other) == pytest.approx(wanted, abs=1e-12)


def test_rank_correlation_does_not_depend_on_the_unit_of_a_map() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 8, 8))
    assert rank_correlation(one * 1e-30, other * 1e30) == rank_correlation(one, other)


def mean_over_cells(heatmap: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The mean over the pixels that a cell touches, a cell at a time."""
    height, width = heatmap.shape
    found = np.zeros((rows, columns))
    for r in range(rows):
        for c in range(columns):
            top, bottom = math.floor(r * height / rows), math.ceil((r + 1) * height / rows)
            left, right = math.floor(c * width / columns), math.ceil((c + 1) * width / columns)
            found[r, c] = heatmap[top:bottom, left:right].mean()
    return found


@pytest.mark.parametrize(
    ("shape", "grid"),
    [((56, 56), (14, 14)), ((112, 112), (7, 7)), ((100, 100), (14, 14)), ((33, 50), (7, 4)), ((5, 5), (5, 5)),
     ((3, 3), (5, 5))],
)  # fmt: skip
def test_a_map_is_pooled_to_the_mean_over_each_cell(shape: tuple[int, int], grid: tuple[int, int]) -> None:
    heatmap = np.random.default_rng(0).random(shape)
    found = pooled(heatmap, grid)
    assert found.shape == grid
    assert found == pytest.approx(mean_over_cells(heatmap, *grid), abs=1e-12)


def test_pooling_undoes_the_enlargement_of_a_lattice() -> None:
    grid = np.random.default_rng(0).random((14, 14))
    assert pooled(np.kron(grid, np.ones((8, 8))), (14, 14)) == pytest.approx(grid, abs=1e-12)


def test_half_precision_is_pooled_without_overflow() -> None:
    heatmap = np.full((448, 448), 60000, np.float16)
    assert (pooled(heatmap, (14, 14)) == float(np.float16(60000))).all()


# Words


def test_mean_z_is_taken_over_the_tokens_of_each_group() -> None:
    rows = [(["a", "b", "?"], [1.0, 2.0, 9.0]), (["a", "c"], [-4.0, 6.0]), ([], [])]
    means = mean_z(rows, {"a": "first", "b": "second", "c": "second"})
    assert means == {"first": (-1.5, 2), "second": (4.0, 2)}


def test_tokens_of_no_group_are_left_out() -> None:
    assert mean_z([(["x", "y"], [1.0, 2.0])], {"a": "first"}) == {}


def test_a_row_with_more_tokens_than_z_scores_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        mean_z([(["a", "b"], [1.0])], {"a": "first"})


def test_nouns_verbs_adjectives_and_adverbs_are_content_and_the_rest_function() -> None:
    tags = {"dog": "NOUN", "runs": "VERB", "red": "ADJ", "left": "ADV", "the": "DET", "is": "AUX",
            "of": "ADP", "what": "WH", "he": "PRON", "?": "PUNCT"}  # fmt: skip
    groups = content_and_function(tags)
    assert {token for token, group in groups.items() if group == "content"} == {"dog", "runs", "red", "left"}
    assert {token for token, group in groups.items() if group == "function"} == {
        "the", "is", "of", "what", "he", "?"
    }  # fmt: skip


def standardized(values: np.ndarray, ddof: int) -> np.ndarray:
    return (values - values.mean()) / values.std(ddof=ddof)


@pytest.mark.skipif(not PRINTED.is_file(), reason=f"the paper's printed rows are not at {PRINTED}")
def test_the_papers_printed_rows_are_standardized_with_n_minus_1_and_not_with_n() -> None:
    for row in json.loads(PRINTED.read_text())["rows"]:
        z = np.array(row["z"])
        # Each z is rounded to four digits: Σz is off by at most n halves of the last one.
        tolerance = len(z) * HALF_A_PRINTED_DIGIT
        assert is_standardized(z, tolerance)
        assert not is_standardized(z * np.sqrt(len(z) / (len(z) - 1)), tolerance)


@pytest.mark.parametrize("count", [2, 3, 8, 40])
def test_rows_with_the_sample_deviation_are_standardized_and_with_the_population_deviation_not(
    count: int,
) -> None:
    values = np.random.default_rng(count).random(count)
    assert is_standardized(standardized(values, ddof=1))
    assert is_standardized(standardized(values, ddof=1).astype(np.float32))
    assert not is_standardized(standardized(values, ddof=0))


@pytest.mark.parametrize("row", [[0.0], [0.0, 0.0, 0.0]])
def test_a_row_of_equal_saliencies_is_standardized(row: list[float]) -> None:
    assert is_standardized(np.array(row))


@pytest.mark.parametrize(
    "row",
    [[math.nan, 0, 0], [math.nan], [math.inf, -math.inf], [1.0], [1e-2, -1e-2], [1.0, 0.0, 1.0],
     [0.2 + 2**-0.5, 0.2 - 2**-0.5]],
)  # fmt: skip
def test_a_row_of_anything_else_is_not_standardized(row: list[float]) -> None:
    assert not is_standardized(np.array(row))


# The table


@pytest.mark.parametrize(
    ("measured", "required", "ok"),
    [(0.9, 0.9, True), (0.91, 0.9, True), (np.nextafter(0.9, 0), 0.9, False), (math.nan, 0.9, False),
     (-1.0, None, True), (math.nan, None, True)],
)  # fmt: skip
def test_a_check_is_ok_from_its_bound_on(measured: float, required: float | None, ok: bool) -> None:
    assert Check("a", measured, required, 1).ok is ok


def test_the_table_prints_measured_required_and_verdict() -> None:
    table = as_table(
        [
            Check("one", 0.91234, 0.9, 1234, chance=0.25),
            Check("two", 0.5, 0.6, 4, "more of it"),
            Check("three", 0.25, None, 5, "aside"),
        ]
    )
    table, *notes = table.split("\n\n")
    assert notes == ["two: more of it", "three: aside"]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert rows[0] == ["check", "measured", "chance", "required", "ok", "n"]
    assert rows[2:] == [
        ["one", "0.912", "0.250", "≥ 0.90", "yes", "1,234"],
        ["two", "0.500", "", "≥ 0.60", "NO", "4"],
        ["three", "0.250", "", "reported", "", "5"],
    ]


@pytest.mark.parametrize("markdown", [True, False, None])
def test_the_table_and_its_notes_fit_80_columns(
    split: SplitConfig, monkeypatch: pytest.MonkeyPatch, markdown: bool | None
) -> None:
    """As `hvx reproduce` prints them into a log, into report.md, and on the usual terminal."""
    monkeypatch.setenv("COLUMNS", "80")
    checks = [replace(check, count=99_999) for check in checks_of(perfect_run(split), split)]
    many = ", ".join(f"TAG{k} +1.00" for k in range(20))
    checks[-2] = replace(checks[-2], note=many)
    text = as_table(checks, markdown)
    assert max(map(len, text.splitlines())) <= 81  # 81: a count that no built-in split has
    assert " ".join(text.split()).endswith(f"{checks[-2].name}: {many}")
    assert all(f"TAG{k} +1.00" in text for k in range(20))
    text = as_table([replace(check, count=2315) for check in checks], markdown)
    assert max(map(len, text.splitlines())) <= 80


def test_checks_as_json_say_whether_they_are_ok() -> None:
    assert json.loads(json.dumps(as_json([Check("one", 0.5, 0.6, 3, "aside")]))) == [
        {"name": "one", "measured": 0.5, "required": 0.6, "count": 3, "note": "aside", "chance": None,
         "ok": False}
    ]  # fmt: skip


# A run over the built-in split


class WrittenRun:
    """A run of these items, as far as the measures read it."""

    path = Path("run")

    def __init__(self, items: list[Item]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> Item:
        return self.items[number]


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> SplitConfig:
    folder = tmp_path_factory.mktemp("measure") / "scenes"
    write_scenes(folder, 1, 12, SCENE, 0)
    return SplitConfig(
        questions=folder / "OpenEnded_scenes_val_questions.json",
        annotations=folder / "scenes_val_annotations.json",
        images=folder / "images",
        image_name=image_name("val"),
        objects=folder / "scenes_val_objects.json",
    )


def perfect_run(split: SplitConfig) -> list[Item]:
    """Right answers, maps that are the object asked about, content words that outweigh the others."""
    table, items = ObjectTable(split), []
    groups = content_and_function(PARTS_OF_SPEECH)
    for question in read_questions(split):
        inside = np.isin(table.mask(question.image_id), table.asked[question.question_id].labels)
        heatmap = inside + np.random.default_rng(0).random((SCENE, SCENE)) * 0.01
        tokens = tokenize_nltk(question.question)
        content = np.array([groups[token] == "content" for token in tokens], float)
        item = Item(
            question_id=question.question_id,
            image_id=question.image_id,
            question=question.question,
            image_path="",
            image_digest="",
            zero_gradient=0,
            answer=question.ground_truth,
            ground_truth=question.ground_truth,
            question_type=question.question_type,
            answer_type=question.answer_type,
            probability=1.0,
            top_answers=((question.ground_truth, 1.0),),
            tokens=tokens,
            token_z=standardized(content, ddof=1).tolist(),
            attention=np.stack([pooled(heatmap, (LATTICE, LATTICE)) / 2] * 2),
            heatmap=heatmap.astype(np.float32),
        )
        items.append(item)
    return items


def measured(items: list[Item], split: SplitConfig) -> dict[str, float]:
    checks = check_run(cast(RunReader, WrittenRun(items)), split)
    return {check.name: check.measured for check in checks}


def one(measured: dict[str, float], part: str) -> float:
    (value,) = [value for name, value in measured.items() if part in name]
    return value


def test_a_perfect_run_measures_the_most_and_passes(split: SplitConfig) -> None:
    items = perfect_run(split)
    checks = check_run(cast(RunReader, WrittenRun(items)), split)
    assert all(check.ok for check in checks)
    found = measured(items, split)
    assert one(found, "accuracy: attribute, shape, existence") == 1
    assert one(found, "accuracy: count") == one(found, "accuracy: relation") == 1
    assert one(found, "pointing game") == 1
    assert one(found, "rank correlation") == pytest.approx(1, abs=1e-6)
    assert one(found, "questions with") == 1


def test_maps_that_point_beside_the_object_hit_nothing(split: SplitConfig) -> None:
    beside = [replace(item, heatmap=2 - item.heatmap) for item in perfect_run(split)]
    found = measured(beside, split)
    assert one(found, "pointing game") == 0
    assert one(found, "rank correlation") == pytest.approx(-1, abs=1e-6)


def test_wrong_answers_count_against_their_kind_alone(split: SplitConfig) -> None:
    items = [
        replace(item, answer="wrong") if item.question_type == "count" else item
        for item in perfect_run(split)
    ]
    found = measured(items, split)
    assert one(found, "accuracy: count") == 0
    assert one(found, "accuracy: relation") == one(found, "accuracy: attribute") == 1


def test_the_contrast_of_words_is_that_of_their_mean_z(split: SplitConfig) -> None:
    items = perfect_run(split)
    content, function = [], []
    for item in items:
        for token, z in zip(item.tokens, item.token_z, strict=True):
            (content if PARTS_OF_SPEECH[token] in ("NOUN", "ADJ", "ADV", "VERB") else function).append(z)
    wanted = np.mean(content) - np.mean(function)
    assert wanted > 1
    assert one(measured(items, split), "mean z") == pytest.approx(wanted, abs=1e-12)
    turned = [replace(item, token_z=[-z for z in item.token_z]) for item in items]
    assert one(measured(turned, split), "mean z") == pytest.approx(-wanted, abs=1e-12)


def test_a_row_that_is_not_standardized_is_counted(split: SplitConfig) -> None:
    items = perfect_run(split)
    items[0] = replace(items[0], token_z=[math.nan, *items[0].token_z[1:]])
    assert one(measured(items, split), "questions with") == pytest.approx(1 - 1 / len(items))


def test_a_run_over_another_split_is_refused(split: SplitConfig) -> None:
    items = [replace(perfect_run(split)[0], question_id=123)]
    with pytest.raises(HvxError) as raised:
        measured(items, split)
    assert str(raised.value) == (
        f"{split.objects}: no question 123, which run explains; the run is of another split"
    )


# Each check, by name, bound and note


def checks_of(items: list[Item], split: SplitConfig) -> list[Check]:
    return check_run(cast(RunReader, WrittenRun(items)), split)


def test_the_checks_their_bounds_and_their_notes(split: SplitConfig) -> None:
    items = perfect_run(split)
    kinds = [item.question_type for item in items]
    single = [kind in ("attribute", "shape", "existence") for kind in kinds]
    table = ObjectTable(split)
    asked = [table.asked[item.question_id] for item in items]
    regions = [
        float(np.isin(table.mask(item.image_id), own.labels).mean())
        for item, own, mark in zip(items, asked, single, strict=True)
        if mark and own.labels
    ]
    others = dict.fromkeys(kind for kind, mark in zip(kinds, single, strict=True) if not mark)
    found = checks_of(items, split)
    by_tag: dict[str, list[float]] = {}
    for item in items:
        for token, z in zip(item.tokens, item.token_z, strict=True):
            by_tag.setdefault(PARTS_OF_SPEECH[token], []).append(z)
    tags = sorted(by_tag, key=lambda tag: (-np.mean(by_tag[tag]), tag))
    n, located = len(items), len(regions)
    truths = {kind: [item.ground_truth for item in items if item.question_type == kind] for kind in kinds}
    chance = {kind: max(own.count(answer) for answer in own) for kind, own in truths.items()}
    of_one = sum(chance.get(kind, 0) for kind in ("attribute", "shape", "existence")) / sum(single)
    levels = [of_one, *(chance[kind] / len(truths[kind]) for kind in others), np.mean(regions), 0, 0, None]
    assert [check.chance for check in found] == [level if level is None else pytest.approx(level)
                                                 for level in levels]  # fmt: skip
    assert [(check.name, check.required, check.count, check.note) for check in found] == [
        ("accuracy: attribute, shape, existence", 0.97, sum(single), ""),
        *((f"accuracy: {kind}", None, kinds.count(kind), "") for kind in others),
        ("pointing game: heat map", 0.90, located, "that of the attention maps is 1.000"),
        ("rank correlation: heat map, attention", 0.40, n, ""),
        (
            "mean z: content less function words", 1.0, n,
            ", ".join(f"{tag} {np.mean(by_tag[tag]):+.2f}" for tag in tags),
        ),
        ("questions with Σz = 0, Σz² = n − 1", 1.0, n, ""),
    ]  # fmt: skip
    assert len(others) >= 2


@pytest.mark.parametrize("place", range(5))
def test_each_check_passes_at_its_bound_and_fails_just_below(split: SplitConfig, place: int) -> None:
    check = [own for own in checks_of(perfect_run(split), split) if own.required is not None][place]
    assert check.required is not None
    assert replace(check, measured=check.required).ok
    assert not replace(check, measured=float(np.nextafter(check.required, -1))).ok


def test_heat_maps_and_attention_maps_are_counted_apart_and_only_where_one_object_is_asked_about(
    split: SplitConfig,
) -> None:
    table = ObjectTable(split)
    items = []
    for item in perfect_run(split):
        asked = table.asked[item.question_id]
        if asked.kind not in ("attribute", "shape", "existence") or not asked.labels:
            item = replace(item, heatmap=2 - item.heatmap, attention=1 - item.attention)
        items.append(item)
    located = [k for k, item in enumerate(items) if item.heatmap.max() < 1.5]
    assert 2 < len(located) < len(items)
    heat = {check.name: check for check in checks_of(items, split)}["pointing game: heat map"]
    assert heat.measured == 1 and heat.note == "that of the attention maps is 1.000"
    items[located[0]] = replace(items[located[0]], attention=1 - items[located[0]].attention)
    for k in located[1:3]:
        items[k] = replace(items[k], heatmap=2 - items[k].heatmap)
    heat = {check.name: check for check in checks_of(items, split)}["pointing game: heat map"]
    assert heat.measured == pytest.approx(1 - 2 / len(located))
    assert heat.note == f"that of the attention maps is {1 - 1 / len(located):.3f}"


def test_wrong_answers_are_counted_among_those_of_single_objects(split: SplitConfig) -> None:
    items = perfect_run(split)
    single = [k for k, item in enumerate(items) if item.question_type in ("attribute", "shape", "existence")]
    for k in single[::3]:
        items[k] = replace(items[k], answer="wrong")
    found = measured(items, split)
    assert one(found, "attribute, shape, existence") == pytest.approx(1 - len(single[::3]) / len(single))
    assert one(found, "accuracy: count") == 1


def test_the_table_of_no_checks_has_its_header() -> None:
    assert as_table([]) == "| check | measured | chance | required | ok | n |\n|---|---|---|---|---|---|"


@pytest.mark.parametrize(("spread", "right"), [(0.5e-4, True), (2e-4, False)])
def test_the_sum_of_z_may_be_off_by_rounding_only(spread: float, right: bool) -> None:
    """Σz² is off by a second-order amount, Σz by ``spread``."""
    z = standardized(np.arange(5.0), ddof=1)
    assert is_standardized(z + spread / 5) is right
    assert is_standardized(z - spread / 5) is right


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_sum_of_squares_may_be_off_by_rounding_only(sign: int) -> None:
    z = standardized(np.arange(5.0), ddof=1)
    assert is_standardized(z * np.sqrt(1 + sign * 4e-4 / 4))  # of at most 1e-4 for each token
    assert not is_standardized(z * np.sqrt(1 + sign * 6e-4 / 4))
