"""Pickles of plain values: what is read, what is refused, and that nothing in them ever runs."""

from __future__ import annotations

import pickle
import random
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from hostile import Harm, mutated

from hvx.errors import HvxError
from hvx.importers.pickles import read_plain_pickle

WORDS = ("what", "color", "is", "the", "UNK", "café")


@pytest.mark.parametrize("protocol", range(6))
def test_a_plain_dict_is_read_from_every_protocol(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "x.pickle"
    for held in (dict(enumerate(WORDS)), {word: -number for number, word in enumerate(WORDS)}, {}):
        path.write_bytes(pickle.dumps(held, protocol))
        assert read_plain_pickle(path) == held
    large = {number: f"word {number % 70000}" for number in range(2**31 - 90000, 2**31 + 90000, 2)}
    path.write_bytes(pickle.dumps(large, protocol))
    assert read_plain_pickle(path) == large


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "wid_to_word.pickle"
    for held in ({1: "a", 2: Harm(tmp_path)}, Harm(tmp_path)):
        path.write_bytes(pickle.dumps(held, protocol))
        with pytest.raises(
            HvxError, match=r"wid_to_word\.pickle: holds (STACK_)?GLOBAL .*'?system.* unopened"
        ):
            read_plain_pickle(path)
    assert not (tmp_path / "harmed").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "harmed").exists()  # so the file does hold what was refused


@pytest.mark.parametrize(
    "held",
    [
        {1: None}, {1: 1.5}, {1: True}, {1: b"a"}, {1: (1,)}, {1: {2: 3}}, {1: [2]}, {(1, 2): 3}, [[1]],
        {1, 2}, OrderedDict({1: "a"}), {1: 2**64}, {1: 2**9000}, 7, "text", None, (1, 2), bytearray(b"a"),
    ],
    ids=lambda held: repr(held)[:24],
)  # fmt: skip
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_of_anything_but_strings_and_whole_numbers_is_refused(
    tmp_path: Path, held: Any, protocol: int
) -> None:
    path = tmp_path / "x.pickle"
    path.write_bytes(pickle.dumps(held, protocol))
    with pytest.raises(HvxError, match=r"x\.pickle: .*expected one plain dict") as refused:
        read_plain_pickle(path, or_list=True)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("data", "held"),
    [
        (b"(dp0\nI1\nS'cat'\np1\nsI2\nVcaf\xe9\\u00e9\np2\nsL3L\nS'don\\'t'\np3\ns.",
         {1: "cat", 2: "caféé", 3: "don't"}),
        (b"(dp1\nS'cat'\np2\nI1\nsS'dog'\np3\ng2\ns.", {"cat": 1, "dog": "cat"}),
        (b"}q\x01(K\x01U\x03catq\x02K\x02T\x05\x00\x00\x00caf\xc3\xa9q\x03u.", {1: "cat", 2: "café"}),
        (b"\x80\x02}q\x01(K\x01U\x04caf\xe9q\x02M\x00\x01X\x05\x00\x00\x00caf\xc3\xa9q\x03u.",
         {1: "café", 256: "café"}),
        (b"}(K\x01S'caf\\xc3\\xa9'\nK\x02S\"caf\\xe9's\"\nu.", {1: "café", 2: "café's"}),
        (b"(dp0\nI1\nS'na\xc3\xafve'\np1\ns.", {1: "naïve"}),
        (b"\x80\x02}q\x01.", {}),
        (b"\x80\x02]q\x01(U\x01aq\x02h\x02J\xff\xff\xff\xff\x8a\x01\x05e.", ["a", "a", -1, 5]),
    ],
)  # fmt: skip
def test_pickles_of_python_2_are_read(tmp_path: Path, data: bytes, held: Any) -> None:
    path = tmp_path / "x.pickle"
    path.write_bytes(data)
    assert read_plain_pickle(path, or_list=True) == held


@pytest.mark.parametrize(
    "data",
    [
        b"", b".", b"}", b"}}.", b"}(.", b"}(K\x01u.", b"}K\x01s.", b"}h\x05.", b"(K\x01h\x00d.", b"u.",
        b"e.", b"}r\xff\xff\xff\x7f(h\x05u.", b"}q\x00(K\x01h\x00u.", b"]q\x00h\x00a.", b"]K\x01K\x02s.",
        b"}X\xff\xff\xff\xff", b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f", b"T\xff\xff\xff\xff",
        b"\x8b\xff\xff\xff\x7f", b"}I01\nI2\ns.", b"}(K\x01Pnasty\nu.", b"}(ios\nsystem\nu.",
        b"}K\x01K\x020s.", b"}K\x012s.", b"c\n\n.", b"F1.5\n.", b"I" + b"9" * 5000 + b"\n.",
        b"}(K\x01S'cat\nu.", b"}(K\x01Scat\nu.", b"}(K\x01S'\nu.", b"}K\x01.", b"K\x01}.",
    ],
)  # fmt: skip
def test_broken_and_hostile_pickles_are_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.pickle"
    path.write_bytes(data)
    with pytest.raises(HvxError) as refused:
        read_plain_pickle(path)
    assert str(refused.value).startswith(str(path)) and "\n" not in str(refused.value)


def test_a_memo_bomb_is_refused(tmp_path: Path) -> None:
    held: list[Any] = ["boom"]
    for _ in range(40):
        held = [held] * 10
    path = tmp_path / "x.pickle"
    path.write_bytes(pickle.dumps(held))
    with pytest.raises(HvxError, match="a container inside of another"):
        read_plain_pickle(path, or_list=True)


def test_a_pickle_too_large_for_a_vocabulary_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pickle"
    with path.open("wb") as file:
        file.truncate(2**34)
    with pytest.raises(HvxError, match="17,179,869,184 bytes; a vocabulary's pickle has"):
        read_plain_pickle(path)


def test_mutated_pickles_are_read_or_refused(tmp_path: Path) -> None:
    chance = random.Random(1)
    path = tmp_path / "x.pickle"
    outcomes, lines = [0, 0], 0
    for turn in range(6000):
        held: Any = dict(enumerate(WORDS)) if turn % 2 else list(WORDS)
        path.write_bytes(mutated(pickle.dumps(held, turn % 6), chance))
        try:
            read = read_plain_pickle(path, or_list=True)
        except HvxError as refused:
            outcomes[0] += 1
            lines += str(refused).count("\n")
        else:
            outcomes[1] += 1
            values = [*read.keys(), *read.values()] if isinstance(read, dict) else read
            assert all(type(value) in (int, str) for value in values)
    assert min(outcomes) > 200 and lines == 0
