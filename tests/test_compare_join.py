"""Runs joined by question: which are common, where they lie, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from made_compare import Made, changed

from hvx.compare.join import Joined, join
from hvx.errors import HvxError
from hvx.store.names import short_names
from hvx.store.reader import RunReader


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def joined(stack: ExitStack, folder: Path, *made: Made, allow: tuple[str, ...] = ()) -> Joined:
    runs = [one.write(folder / name / "run") for one, name in zip(made, "pqr", strict=False)]
    return join([stack.enter_context(RunReader(run)) for run in runs], allow)  # type: ignore[arg-type]


def given(made: Made, order: list[int], **more: object) -> Made:
    """A run with the items of another one in another order."""
    columns = {name: values[order] for name, values in made.columns().items()}
    return Made([made.ids[place] for place in order], made.seed + len(order), given=columns | more)


def test_common_questions_are_found_wherever_each_run_has_them(stack: ExitStack, tmp_path: Path) -> None:
    first = Made(range(10, 18))
    found = joined(stack, tmp_path, first, given(first, [7, 1, 0, 5]), given(first, [0, 2, 5, 7, 6]))
    assert found.question_ids == [10, 15, 17]  # in the first run's order
    assert [own.tolist() for own in found.numbers] == [[0, 5, 7], [2, 3, 0], [0, 2, 3]]
    for run, numbers in zip(found.runs, found.numbers, strict=True):
        assert [run[int(n)].question for n in numbers] == ["what is 0 ?", "what is 5 ?", "what is 7 ?"]
        assert [run[int(n)].question_id for n in numbers] == found.question_ids
    assert found.column(2, "image_id").tolist() == ["i0", "i2", "i3"]
    assert found.labels == ("A", "B", "C")
    assert found.names == ("p/run", "q/run", "r/run")
    assert found.notes == () and found.regions is None


def test_questions_on_one_photograph_have_one_number(stack: ExitStack, tmp_path: Path) -> None:
    digests = np.array(["x", "y", "x", "z"], object)
    first = Made(range(4), given={"image_digest": digests})
    images = joined(stack, tmp_path, first, given(first, [0, 1, 2, 3])).images
    assert images[0] == images[2] and len(set(images.tolist())) == 3


def test_no_common_question_is_refused_with_examples(stack: ExitStack, tmp_path: Path) -> None:
    with pytest.raises(HvxError, match=r"no question_id in common .*p/run: 1, .*q/run: 'q1'"):
        joined(stack, tmp_path, Made([1, 2]), Made(["q1", "q2"]))


def test_an_integer_is_the_text_that_it_is_written_as(stack: ExitStack, tmp_path: Path) -> None:
    first = Made([17, 18, 19])
    texts = ["017", "18", "17"]
    own = given(first, [2, 1, 0]).given | {"question_id": np.array(texts, object)}
    found = joined(stack, tmp_path, first, Made(texts, 1, given=own))
    assert found.question_ids == [17, 18]
    assert [own.tolist() for own in found.numbers] == [[0, 1], [2, 1]]
    (note,) = found.notes
    assert note.startswith("question_ids are integers in A and texts in B")


@pytest.mark.parametrize(
    ("column", "what", "says"),
    [("question", "questions", "its text differs"), ("image_digest", "images", "its image file differs")],
)
def test_another_question_under_the_same_id_is_refused_unless_allowed(
    stack: ExitStack, tmp_path: Path, column: str, what: str, says: str
) -> None:
    first = Made(range(5))
    values = changed(first.columns()[column], n1="other", n3="another")
    second = given(first, [0, 1, 2, 3, 4], **{column: values})
    with pytest.raises(HvxError, match=rf"^question_id 1: {says} .*2 question.*--allow-changed {what}"):
        joined(stack, tmp_path / "1", first, second)
    other = {"questions": "images", "images": "questions"}[what]
    with pytest.raises(HvxError, match=r"^question_id 1: "):
        joined(stack, tmp_path / "2", first, second, allow=(other,))
    found = joined(stack, tmp_path / "3", first, second, allow=(what,))
    assert len(found) == 5
    assert "for 2 question(s), as allowed" in found.notes[0]


def test_a_run_given_twice_is_refused_also_by_another_name(stack: ExitStack, tmp_path: Path) -> None:
    run = Made([1, 2]).write(tmp_path / "run")
    (tmp_path / "link").symlink_to(run)
    readers = [stack.enter_context(RunReader(path)) for path in (run, tmp_path / "link")]
    with pytest.raises(HvxError, match=r"link: given twice \(as .*run\)"):
        join(readers)
    with pytest.raises(HvxError, match="given twice; "):
        join([readers[0], readers[0]])
    with pytest.raises(HvxError, match=r"1 run\(s\) to compare; expected 2 to 26"):
        join(readers[:1])


def test_an_id_that_occurs_twice_is_refused(stack: ExitStack, tmp_path: Path) -> None:
    with pytest.raises(HvxError, match="q/run: question_id 2 occurs twice"):
        joined(stack, tmp_path, Made([1, 2]), Made([1, 2, 2]))


def test_a_copied_run_is_said_to_be_one(stack: ExitStack, tmp_path: Path) -> None:
    runs = [Made([1, 2]).write(tmp_path / name / "run") for name in "pq"]
    assert "A and B have the same model" in join([stack.enter_context(RunReader(r)) for r in runs]).notes[0]


def test_maps_of_other_parts_of_the_photographs_are_not_comparable(stack: ExitStack, tmp_path: Path) -> None:
    first = Made([1, 2])
    larger = Made([1, 2], 1, crop={"square": "center", "scaled_to": [56, 56]})
    assert joined(stack, tmp_path / "1", first, larger).regions is None
    whole = Made([1, 2], 1, crop={"square": "whole", "scaled_to": [28, 28]})
    reason = joined(stack, tmp_path / "2", first, whole).regions
    assert reason == "A and B see different parts of the photographs (square: 'center' and 'whole')"
    turned = Made([1, 2], 1, about={"exif_orientation": True})
    assert "exif_orientation: False and True" in str(joined(stack, tmp_path / "3", first, turned).regions)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/a/full", "/a/small"], ["full", "small"]),
        (["/a/mlb/run", "/a/dan/run"], ["mlb/run", "dan/run"]),
        (["/x/mlb/run", "/y/mlb/run", "/y/dan/run"], ["x/mlb/run", "y/mlb/run", "dan/run"]),
        (["/run", "/a/run"], ["run", "a/run"]),
        (["/a/full", "/full"], ["a/full", "full"]),
    ],
)
def test_names_are_the_shortest_ends_of_paths(paths: list[str], names: list[str]) -> None:
    assert short_names([Path(path) for path in paths]) == names
