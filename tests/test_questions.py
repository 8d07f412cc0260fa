"""VQA JSON: read as its publishers write it, and refused by the place that is wrong."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest

from hvx.config import SplitConfig
from hvx.data.questions import Question, read_questions
from hvx.errors import HvxError

DAQUAR = Path(__file__).parents[2] / "shared" / "data" / "daquar"

FIRST = {"question_id": 11, "image_id": 1, "question": "What color is the hydrant?"}
SECOND = {"question_id": 12, "image_id": 1, "question": "Is it new?"}
THIRD = {"question_id": 20, "image_id": 2, "question": "How many?"}
IMAGE = "COCO_val2014_000000000001.jpg"
PEOPLE = ["red", "red", "dark red", "red", "red", "red", "red", "maroon", "red", "red"]

HYDRANT = Question(11, 1, IMAGE, "What color is the hydrant?", "red", tuple(PEOPLE), "what color", "other")
NO_IMAGE = (
    "no image; expected 'image_id', or a name in 'image' or 'image_name' or 'image_filename' or 'file_name'"
)
NO_ANSWER = "no answer; expected 'multiple_choice_answer', 'answers' or 'answer'"
WRONG_ANSWERS = (
    "expected 'answers' as a list of texts or of {'answer': …}; an answer or type as text, an answer as a "
    "number also"
)


def annotation(question: dict[str, Any], answer: str, people: list[str] | None = None) -> dict[str, Any]:
    """An annotation as VQA v1 has them."""
    said = people or [answer] * 10
    return {
        "question_id": question["question_id"],
        "image_id": question["image_id"],
        "question_type": "what color",
        "answer_type": "other",
        "multiple_choice_answer": answer,
        "answers": [
            {"answer_id": n, "answer": a, "answer_confidence": "yes"} for n, a in enumerate(said, start=1)
        ],
    }


def split(folder: Path, questions: Any, annotations: Any = None, limit: int | None = None) -> SplitConfig:
    """A split of these questions; a list stands for a file that is right around it."""
    head = {"info": {}, "task_type": "Open-Ended", "data_type": "mscoco", "license": {}}
    files: dict[str, Path | None] = {"questions": folder / "questions.json", "annotations": None}
    if isinstance(questions, list):
        questions = {**head, "questions": questions}
    (folder / "questions.json").write_text(json.dumps(questions))
    if annotations is not None:
        if isinstance(annotations, list):
            annotations = {**head, "annotations": annotations}
        files["annotations"] = folder / "annotations.json"
        (folder / "annotations.json").write_text(json.dumps(annotations))
    return SplitConfig.model_validate({**files, "images": folder, "limit": limit})


def error_of(wrong: SplitConfig) -> str:
    with pytest.raises(HvxError) as raised:
        read_questions(wrong)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_questions_are_joined_with_their_annotations_by_id(tmp_path: Path) -> None:
    annotations = [annotation(SECOND, "no"), annotation(THIRD, "2"), annotation(FIRST, "red", PEOPLE)]
    read = read_questions(split(tmp_path, [FIRST, SECOND], annotations))
    assert read == [
        HYDRANT,
        Question(
            12, 1, "COCO_val2014_000000000001.jpg", "Is it new?", "no", ("no",) * 10, "what color", "other"
        ),
    ]


def test_a_split_without_annotations_has_questions_without_answers(tmp_path: Path) -> None:
    assert read_questions(split(tmp_path, [THIRD, FIRST])) == [
        Question(20, 2, "COCO_val2014_000000000002.jpg", "How many?"),
        Question(11, 1, "COCO_val2014_000000000001.jpg", "What color is the hydrant?"),
    ]
    assert Question(20, 2, "COCO_val2014_000000000002.jpg", "How many?").ground_truth == ""
    assert Question(20, 2, "COCO_val2014_000000000002.jpg", "How many?").answers == ()


def test_an_annotation_may_lack_what_only_the_evaluator_needs(tmp_path: Path) -> None:
    least = {"question_id": 11, "multiple_choice_answer": "red"}
    (question,) = read_questions(split(tmp_path, [FIRST], [least]))
    assert (question.ground_truth, question.answers) == ("red", ("red",))
    assert (question.question_type, question.answer_type) == ("", "")


def test_a_type_that_is_null_is_empty(tmp_path: Path) -> None:
    unknown = {**annotation(FIRST, "red"), "question_type": None, "answer_type": None}
    (question,) = read_questions(split(tmp_path, [FIRST], [unknown]))
    assert (question.question_type, question.answer_type) == ("", "")


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (2, 2), (3, 3), (100, 3), (None, 3)])
def test_a_limit_takes_the_first_questions(tmp_path: Path, limit: int | None, count: int) -> None:
    questions = [FIRST, SECOND, THIRD]
    read = read_questions(split(tmp_path, questions, limit=limit))
    assert [q.question_id for q in read] == [q["question_id"] for q in questions[:count]]


def test_questions_beyond_the_limit_need_no_annotation(tmp_path: Path) -> None:
    read = read_questions(split(tmp_path, [FIRST, SECOND], [annotation(FIRST, "red")], limit=1))
    assert [q.ground_truth for q in read] == ["red"]


def test_missing_files_are_named(tmp_path: Path) -> None:
    right = split(tmp_path, [FIRST], [annotation(FIRST, "red")])
    (tmp_path / "annotations.json").unlink()
    assert error_of(right) == f"{tmp_path / 'annotations.json'}: no such file (the split's annotations)"
    (tmp_path / "questions.json").unlink()
    assert error_of(right) == f"{tmp_path / 'questions.json'}: no such file (the split's questions)"


def test_a_file_that_is_not_json_is_named(tmp_path: Path) -> None:
    right = split(tmp_path, [FIRST])
    (tmp_path / "questions.json").write_text('{"questions": [')
    assert error_of(right).startswith(f"{tmp_path / 'questions.json'}: not valid JSON")


@pytest.mark.parametrize(
    "tree", [{}, {"question": [FIRST]}, {"questions": {"0": FIRST}}, {"questions": None}, 3, None]
)
def test_json_without_a_list_of_questions_is_not_vqa_json(tmp_path: Path, tree: Any) -> None:
    wrong = split(tmp_path, {"questions": []})
    (tmp_path / "questions.json").write_text(json.dumps(tree))
    assert error_of(wrong) == (
        f"{tmp_path / 'questions.json'}: neither VQA JSON nor JSON Lines: expected an object with a list "
        "'questions', a list of rows, or a row a line"
    )


def test_a_questions_file_in_place_of_the_annotations_is_refused(tmp_path: Path) -> None:
    said = error_of(split(tmp_path, [FIRST], {"questions": [FIRST]}))
    assert (
        said
        == f"{tmp_path / 'annotations.json'}: neither VQA JSON nor JSON Lines: expected an object with a "
        "list 'annotations', a list of rows, or a row a line"
    )


def test_an_empty_split_holds_no_questions(tmp_path: Path) -> None:
    said = error_of(split(tmp_path, []))
    assert said == f"{tmp_path / 'questions.json'}: the split holds no questions"


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ({"question_id": 3, "image_id": 1}, "questions[1].question: expected text, not None"),
        ({"question_id": 3, "question": "a?"}, f"questions[1]: {NO_IMAGE}"),
        (
            {"image_id": 1, "question": "a?"},
            "questions[1].question_id: expected an integer or a text, not None",
        ),
        (
            {**SECOND, "question_id": "12"},
            "questions[1].question_id: '12' is a text, an id before it an integer; expected ids of one kind",
        ),
        (
            {**SECOND, "question_id": True},
            "questions[1].question_id: expected an integer or a text, not True",
        ),
        ({**SECOND, "image_id": 1.0}, "questions[1].image_id: expected an integer or a text, not 1.0"),
        ({**SECOND, "question": ["a?"]}, "questions[1].question: expected text, not ['a?']"),
        ("a?", "questions[1]: expected an object, not 'a?'"),
        (None, "questions[1]: expected an object, not None"),
    ],
)
def test_a_question_that_is_wrong_is_named_by_its_place(tmp_path: Path, row: Any, place: str) -> None:
    assert error_of(split(tmp_path, [FIRST, row])) == f"{tmp_path / 'questions.json'}: {place}"


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ({"question_id": 11}, f"annotations[0]: {NO_ANSWER}"),
        (
            {**annotation(FIRST, "a"), "question_id": None},
            "annotations[0].question_id: expected an integer or a text, not None",
        ),
        ([], "annotations[0]: expected an object, not []"),
    ],
)
def test_an_annotation_that_is_wrong_is_named_by_its_place(tmp_path: Path, row: Any, place: str) -> None:
    assert error_of(split(tmp_path, [FIRST], [row])) == f"{tmp_path / 'annotations.json'}: {place}"


@pytest.mark.parametrize(
    "answers",
    [3, "red", [["red"]], [None], [True], [{}], ["red", {"answer": "red"}],
     [{"answer": "red"}, {"said": "red"}],
     {"a": 1}, [{"answer": None}],
     [{"answer": ["red"]}], [{"answer": True}]],
)  # fmt: skip
def test_answers_of_another_form_are_named_by_their_question(tmp_path: Path, answers: Any) -> None:
    said = error_of(split(tmp_path, [FIRST], [{**annotation(FIRST, "red"), "answers": answers}]))
    assert said == (f"{tmp_path / 'annotations.json'}: question 11: {WRONG_ANSWERS}")


def test_a_long_wrong_value_is_cut_short(tmp_path: Path) -> None:
    said = error_of(split(tmp_path, [{**FIRST, "question": ["1" * 5000]}]))
    assert len(said.removeprefix(str(tmp_path))) < 120


def test_a_question_id_that_occurs_twice_is_named(tmp_path: Path) -> None:
    said = error_of(split(tmp_path, [FIRST, SECOND, {**THIRD, "question_id": 11}]))
    assert said == f"{tmp_path / 'questions.json'}: question_id 11 occurs twice"


def test_two_annotations_of_one_question_are_refused(tmp_path: Path) -> None:
    said = error_of(split(tmp_path, [FIRST], [annotation(FIRST, "red"), annotation(FIRST, "blue")]))
    assert said == f"{tmp_path / 'annotations.json'}: question_id 11 occurs twice"


def test_questions_without_annotation_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    said = error_of(split(tmp_path, [FIRST, SECOND, THIRD], [annotation(SECOND, "no")]))
    assert said == (
        f"{tmp_path / 'annotations.json'}: no annotation for question 11 "
        f"(2 of 3 questions of {tmp_path / 'questions.json'} lack one)"
    )


@pytest.mark.parametrize(
    ("change", "field"),
    [({"question": "a\0b?"}, "question"),
     ({"question_id": 2**63}, "question_id"), ({"image_id": -(2**63) - 1}, "image_id")],
)  # fmt: skip
def test_what_no_run_could_store_is_refused_before_the_work(
    tmp_path: Path, change: dict[str, Any], field: str
) -> None:
    said = error_of(split(tmp_path, [SECOND, {**FIRST, **change}]))
    assert said.startswith(f"{tmp_path / 'questions.json'}: questions[1].{field}: ")
    said.encode()


@pytest.mark.parametrize(
    "change", [{"answers": [{"answer": "a\0b"}]}, {"answers": ["é", "a\0"]}, {"question_type": "\0"}]
)
def test_annotations_that_no_run_could_store_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    said = error_of(split(tmp_path, [FIRST], [{**annotation(FIRST, "red"), **change}]))
    assert said.startswith(f"{tmp_path / 'annotations.json'}: question 11: ")


def test_the_largest_ids_and_any_script_are_read(tmp_path: Path) -> None:
    row = {"question_id": 2**63 - 1, "image_id": -(2**63), "question": "什么颜色？ 😀"}
    (question,) = read_questions(split(tmp_path, [row]))
    assert (question.question_id, question.image_id, question.question) == tuple(row.values())


def test_answers_that_are_numbers_become_text(tmp_path: Path) -> None:
    row = {
        **annotation(FIRST, "5"),
        "answers": [{"answer": 5}, {"answer": 1}, {"answer": 2.5}, {"answer": "1"}],
    }
    assert read_questions(split(tmp_path, [FIRST], [row]))[0].answers == ("5", "1", "2.5", "1")


def test_a_type_that_is_no_text_is_named(tmp_path: Path) -> None:
    said = error_of(split(tmp_path, [FIRST], [{**annotation(FIRST, "red"), "answer_type": ["other"]}]))
    assert said == (f"{tmp_path / 'annotations.json'}: question 11: {WRONG_ANSWERS}")


@pytest.mark.parametrize("annotations", [None, [annotation(FIRST, "red")], [annotation(SECOND, "no")]])
def test_reading_leaves_the_search_for_cycles_as_it_was(tmp_path: Path, annotations: Any) -> None:
    given = split(tmp_path, [FIRST], annotations)
    for on in (True, False):
        (gc.enable if on else gc.disable)()
        try:
            read_questions(given)
        except HvxError:
            pass
        finally:
            found = gc.isenabled()
            gc.enable()
        assert found == on


# JSON Lines


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def split_of_lines(
    folder: Path, questions: list[Any], annotations: list[Any] | None = None, suffix: str = ".jsonl"
) -> SplitConfig:
    return SplitConfig(
        questions=lines(folder / f"questions{suffix}", questions),
        annotations=None if annotations is None else lines(folder / f"annotations{suffix}", annotations),
        images=folder,
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".JSONL", ".json", ".txt"])
def test_json_lines_are_read_as_vqa_json_is(tmp_path: Path, suffix: str) -> None:
    questions, annotations = [FIRST, SECOND], [annotation(SECOND, "no"), annotation(FIRST, "red", PEOPLE)]
    found = read_questions(split_of_lines(tmp_path, questions, annotations, suffix))
    assert found == read_questions(split(tmp_path / ".", questions, annotations))
    assert found[0].answers == tuple(PEOPLE)
    bare = read_questions(split_of_lines(tmp_path, questions, None, suffix))
    assert bare == read_questions(split(tmp_path / ".", questions))


def test_one_line_is_a_split_of_one_question(tmp_path: Path) -> None:
    given = split_of_lines(tmp_path, [THIRD], suffix=".json")
    assert read_questions(given) == [Question(20, 2, "COCO_val2014_000000000002.jpg", "How many?")]


def test_lines_and_a_list_may_be_joined(tmp_path: Path) -> None:
    given = split(tmp_path, [FIRST], [annotation(FIRST, "red")])
    mixed = given.model_copy(update={"questions": lines(tmp_path / "questions.jsonl", [FIRST])})
    assert read_questions(mixed) == read_questions(given)


def test_blank_lines_a_mark_at_the_start_and_any_line_end_are_read(tmp_path: Path) -> None:
    path = tmp_path / "questions.json"
    path.write_bytes(
        b"\xef\xbb\xbf" + json.dumps(FIRST).encode() + b"\r\n \r\n" + json.dumps(SECOND).encode()
    )
    found = read_questions(SplitConfig(questions=path, images=tmp_path))
    assert [q.question_id for q in found] == [11, 12]


def test_lines_carry_their_own_annotations(tmp_path: Path) -> None:
    both = [{**FIRST, **annotation(FIRST, "red", PEOPLE)}, {**SECOND, "multiple_choice_answer": "no"}]
    assert read_questions(split_of_lines(tmp_path, both)) == [
        HYDRANT,
        Question(12, 1, "COCO_val2014_000000000001.jpg", "Is it new?", "no", ("no",)),
    ]


def test_a_file_of_annotations_is_believed_rather_than_the_lines(tmp_path: Path) -> None:
    given = split_of_lines(
        tmp_path, [{**FIRST, "multiple_choice_answer": "blue"}], [annotation(FIRST, "red")]
    )
    assert [q.ground_truth for q in read_questions(given)] == ["red"]


def test_an_answer_of_null_is_none(tmp_path: Path) -> None:
    given = split_of_lines(tmp_path, [{**FIRST, "multiple_choice_answer": None}])
    assert read_questions(given) == [
        Question(11, 1, "COCO_val2014_000000000001.jpg", "What color is the hydrant?")
    ]


def test_some_questions_with_answers_and_some_without_are_refused(tmp_path: Path) -> None:
    own = {**SECOND, "multiple_choice_answer": "no"}
    assert error_of(split_of_lines(tmp_path, [own, FIRST, THIRD])) == (
        f"{tmp_path / 'questions.jsonl'}: line 2: no answer (2 of 3 questions lack "
        "one; give it to all of them or to none)"
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not valid JSON: Input data was truncated"),
        ('{"question_id": 3} {}', "not valid JSON: JSON is malformed: trailing characters"),
        ('{"question": "\\ud8"}', "not valid JSON: JSON is malformed: invalid character in unicode escape"),
        ("[" * 100_000, "not valid JSON: maximum recursion depth"),
        ("[]", "expected an object, not []"),
        ("{}", "question: expected text, not None"),
        (
            json.dumps({**SECOND, "question_id": "12"}),
            "question_id: '12' is a text, an id before it an integer",
        ),
        (json.dumps({**SECOND, "question": "a\0b"}), "question: 'a\\x00b' holds the character NUL"),
        (json.dumps({**SECOND, "image": "/a.png"}), "image: '/a.png' leads out of the images' folder"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(f"{json.dumps(FIRST)}\n\n{line}\n{json.dumps(THIRD)}\n")
    message = error_of(SplitConfig(questions=path, images=tmp_path))
    assert message.startswith(f"{path}: line 3: {said}")


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_bytes(json.dumps(FIRST).encode() + b'\n{"question": "\xff"}\n')
    assert error_of(SplitConfig(questions=path, images=tmp_path)).startswith(
        f"{path}: line 2: not valid JSON"
    )


def test_a_bad_line_of_annotations_is_named(tmp_path: Path) -> None:
    given = split_of_lines(tmp_path, [FIRST, SECOND], [annotation(FIRST, "red"), {"question_id": 12}])
    assert error_of(given) == (f"{tmp_path / 'annotations.jsonl'}: line 2: {NO_ANSWER}")


def test_lines_beyond_the_limit_are_not_read(tmp_path: Path) -> None:
    given = split_of_lines(tmp_path, [FIRST, SECOND, "no question"])
    assert len(read_questions(given.model_copy(update={"limit": 2}))) == 2


def test_no_lines_are_no_split(tmp_path: Path) -> None:
    said = error_of(split_of_lines(tmp_path, []))
    assert said == f"{tmp_path / 'questions.jsonl'}: the split holds no questions"


@pytest.mark.skipif(not DAQUAR.is_dir(), reason=f"the DAQUAR questions are not at {DAQUAR}")
def test_daquar_is_read_whole() -> None:
    read = read_questions(
        SplitConfig(
            questions=DAQUAR / "OpenEnded_daquar_val_questions.json",
            annotations=DAQUAR / "daquar_val_annotations.json",
            images=DAQUAR / "images",
        )
    )
    assert len(read) == len({q.question_id for q in read}) == 1605
    assert len({q.image_id for q in read}) == 183
    assert all(q.ground_truth and q.answers and q.answer_type for q in read)
