"""YAML of configs: keys given twice, numbers of YAML 1.2, and texts that would fill memory."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from hvx import strict_yaml
from hvx.errors import HvxError
from hvx.strict_yaml import read_yaml, read_yaml_file


def error_of(text: str) -> str:
    with pytest.raises(HvxError) as raised:
        read_yaml(text)
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("-0", 0), ("7", 7), ("+7", 7), ("-12", -12), ("0x1F", 31), ("0o17", 15), ("-1.5", -1.5),
        (".5", 0.5), ("5.", 5.0), ("1e-3", 0.001), ("1E+3", 1000.0), ("1.5e2", 150.0), ("+.5e1", 5.0),
        (".inf", float("inf")), ("-.Inf", float("-inf")), ("+.INF", float("inf")),
        ("1" * 400, int("1" * 400)),
    ],
)  # fmt: skip
def test_numbers_are_those_of_yaml_1_2(text: str, value: float) -> None:
    found = read_yaml(text)
    assert found == value
    assert type(found) is type(value)
    assert read_yaml(f"[{text}]") == [value]


@pytest.mark.parametrize("text", [".nan", ".NaN", ".NAN"])
def test_what_is_no_number_is_read_as_such(text: str) -> None:
    assert math.isnan(read_yaml(text))


@pytest.mark.parametrize(
    "text",
    ["010", "-010", "00", "1:30", "1:30.5", "190:20:30", "1_000", "1_000.5", "0b101", "0x", "0xg", "0o8",
     "0x_1", "-0x1", "1e", "e5", ".", "+", "1.2.3", "٣", "1\u0663", "inf", "nan", "-.nan", ".Infinity"],
)  # fmt: skip
def test_what_only_yaml_1_1_or_python_takes_for_a_number_stays_text(text: str) -> None:
    assert read_yaml(text) == text
    assert read_yaml(f"a: {text}") == {"a": text}


@pytest.mark.parametrize("word", ["yes", "on", "true", "True", "YES"])
def test_booleans_are_booleans(word: str) -> None:
    assert read_yaml(word) is True
    assert read_yaml(f"'{word}'") == word


def test_other_plain_values() -> None:
    assert read_yaml("[no, null, ~, 2001-02-03, text, '3', \"4\"]") == [
        False, None, None, date(2001, 2, 3), "text", "3", "4"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", " on line 3: duplicate key 'a', first on line 1"),
        ("a: 1\n'a': 3", " on line 2: duplicate key 'a', first on line 1"),
        ("s:\n  t:\n    a: 1\n    a: 1", " on line 4: duplicate key 'a', first on line 3"),
        ("- x\n- {a: 1, b: {c: 1,\n  c: 2}}", " on line 3: duplicate key 'c', first on line 2"),
        ("{a: 1, a: 1}", " on line 1: duplicate key 'a', first on line 1"),
        ("s: {a: 1}\nt: 1\ns: {b: 1}", " on line 3: duplicate key 's', first on line 1"),
        ("? a\n: 1\n? a\n: 2", " on line 3: duplicate key 'a', first on line 1"),
        ("x: &x {a: 1,\n  a: 2}\ny: *x", " on line 2: duplicate key 'a', first on line 1"),
        ("x: &x {a: 1}\ny:\n  <<: *x\n  <<: *x", " on line 4: duplicate key '<<', first on line 3"),
        ("y:\n  <<: {a: 1,\n    a: 2}\n  b: 1", " on line 3: duplicate key 'a', first on line 2"),
        ("y:\n  <<: [{a: 1},\n    {a: 2}]", " on line 3: duplicate key 'a', first on line 2"),
        ("y:\n  <<: {a: 1}\n  b: 1\n  b: 2", " on line 4: duplicate key 'b', first on line 3"),
        ("y: {<<: {<<: {a: 1, a: 2}}}", " on line 1: duplicate key 'a', first on line 1"),
        ("!!set {a, a}", " on line 1: duplicate key 'a', first on line 1"),
    ],
)
def test_a_key_given_twice_is_named_with_both_lines(text: str, said: str) -> None:
    assert error_of(text) == said


def test_a_merge_brings_keys_that_the_mapping_itself_may_override() -> None:
    text = "base: &base {a: 1, b: 2}\nmore: &more {c: 3}\nx: {<<: [*base, *more], b: 5, d: 6}\ny: {<<: *base}"
    tree = read_yaml(text)
    assert tree["x"] == {"a": 1, "b": 5, "c": 3, "d": 6}
    assert tree["y"] == {"a": 1, "b": 2}
    assert tree["base"] == {"a": 1, "b": 2}


@pytest.mark.parametrize("source", ["3", "[3]", "[{a: 1}, [b]]"])
def test_a_merge_of_what_is_no_mapping_is_rejected(source: str) -> None:
    assert error_of(f"x: {{<<: {source}}}") == " on line 1: '<<' merges a mapping, or a list of them"


@pytest.mark.parametrize("key", ["1", "yes", "null", "1.5", "2001-01-01"])
def test_a_key_that_is_not_text_is_rejected(key: str) -> None:
    assert error_of(f"a: 1\n{key}: 2") == f" on line 2: the key {key} is not text; put it in quotes"
    assert read_yaml(f"'{key}': 2") == {key: 2}


@pytest.mark.parametrize("key", ["[a]", "{a: b}"])
def test_a_key_that_is_a_collection_is_rejected(key: str) -> None:
    assert error_of(f"? {key}\n: 2") == " on line 1: a key must be text, not a list or a mapping"


def test_a_long_key_is_shortened() -> None:
    assert len(error_of(f"{'a' * 100}: 1\n{'a' * 100}: 2")) < 120


@pytest.mark.parametrize(("tag", "text"), [("int", "010"), ("int", "a"), ("float", "1_0"), ("int", "''")])
def test_a_number_by_its_tag_is_a_number_of_yaml_1_2(tag: str, text: str) -> None:
    shown = text if text == "''" else f"'{text}'"
    assert error_of(f"!!{tag} {text}") == f" on line 1: {shown} is not a number"


def test_a_number_of_many_digits_is_rejected() -> None:
    assert error_of("a: " + "1" * 401) == " on line 1: a number of 401 characters"


# What would fill memory, or the stack


def nest(opening: str, depth: int, closing: str) -> str:
    return opening * depth + "a" + closing * depth


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{a: ", "}")])
def test_nesting_is_bounded(opening: str, closing: str) -> None:
    read_yaml(nest(opening, 50, closing))
    assert error_of(nest(opening, 51, closing)) == " on line 1: nested more than 50 deep"
    assert error_of(opening * 100_000) == " on line 1: nested more than 50 deep"


def bomb(levels: int, width: int = 10) -> str:
    """A list of ``width ** levels`` values, by aliases."""
    lines = ["x0: &x0 [" + ", ".join("1" * width) + "]"]
    lines += [f"x{n}: &x{n} [" + ", ".join([f"*x{n - 1}"] * width) + "]" for n in range(1, levels)]
    return "\n".join(lines)


def test_aliases_make_no_more_values_than_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    assert error_of(bomb(30)) == " on line 6: aliases make more than 1,000,000 values of it"
    text = "[&a [1, 2], *a, *a]"  # 1 + 3 * 3 values
    monkeypatch.setattr(strict_yaml, "MAX_VALUES", 10)
    assert read_yaml(text) == [[1, 2]] * 3
    monkeypatch.setattr(strict_yaml, "MAX_VALUES", 9)
    assert error_of(text) == " on line 1: aliases make more than 9 values of it"
    monkeypatch.setattr(strict_yaml, "MAX_VALUES", 5)
    assert read_yaml("{a: 1, b: 2}") == {"a": 1, "b": 2}
    monkeypatch.setattr(strict_yaml, "MAX_VALUES", 4)
    assert error_of("{a: 1, b: 2}") == " on line 1: aliases make more than 4 values of it"


def test_merges_of_merges_are_rejected_before_they_grow() -> None:
    lines = ["x0: &x0 {a: 1}", *(f"x{n}: &x{n} {{<<: [*x{n - 1}, *x{n - 1}]}}" for n in range(1, 10))]
    assert error_of("\n".join(lines)) == " on line 1: duplicate key 'a', first on line 1"


@pytest.mark.parametrize("text", ["&a [*a]", "&a {b: [*a]}", "&a {<<: *a}", "x: &a\n  y: {z: *a}"])
def test_an_alias_of_what_holds_it_is_rejected(text: str) -> None:
    assert error_of(text) == " on line 1: an alias stands for something that holds the alias itself"


# Files


def test_a_file_is_read_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: 1 # é\n")
    size = path.stat().st_size
    monkeypatch.setattr(strict_yaml, "MAX_BYTES", size)
    assert read_yaml_file(path, "config file") == {"a": 1}
    monkeypatch.setattr(strict_yaml, "MAX_BYTES", size - 1)
    with pytest.raises(HvxError) as raised:
        read_yaml_file(path, "config file")
    assert str(raised.value) == f"{path}: larger than {size - 1} bytes; not a config file"


def test_the_bound_of_a_file_is_a_mebibyte() -> None:
    assert strict_yaml.MAX_BYTES == 1_048_576


def test_a_file_without_an_end_is_rejected() -> None:
    with pytest.raises(HvxError, match=r"^/dev/zero: larger than 1,048,576 bytes; not a config file$"):
        read_yaml_file(Path("/dev/zero"), "config file")


def said_of(path: Path, data: bytes | None, kind: str = "options file") -> str:
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(HvxError) as raised:
        read_yaml_file(path, kind)
    return str(raised.value)


def test_what_is_wrong_with_a_file_is_said_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    assert said_of(path, None) == f"{path}: no such options file"
    assert said_of(path, b"\xff\xfe\x00").startswith(f"{path}: cannot be read (options file): 'utf-8' codec")
    assert (
        said_of(path, b"a: 1\na: 2")
        == f"{path}: not valid YAML on line 2: duplicate key 'a', first on line 1"
    )
    assert said_of(path, b"a: 1\nb: [").startswith(f"{path}: not valid YAML on line 2: expected")
    assert said_of(path, b"\0") == (
        f"{path}: not valid YAML: unacceptable character #x0000: special characters are not allowed"
    )
    assert said_of(tmp_path, None).startswith(f"{tmp_path}: cannot be read (options file): ")


def test_plain_values_need_no_tag_of_python(tmp_path: Path) -> None:
    tree: dict[str, Any] = {"a": [1, 2.5, None, True, "x"], "b": {"c": "010"}}
    path = tmp_path / "a.yaml"
    import yaml

    path.write_text(yaml.safe_dump(tree))
    assert read_yaml_file(path, "config file") == tree
