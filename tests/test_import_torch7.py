"""Torch7 checkpoints, built here byte by byte: what they make, and what is refused."""

from __future__ import annotations

import json
import pickle
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hvx.config import BackboneConfig
from hvx.errors import HvxError
from hvx.explain.hadamard import head_gradients
from hvx.importers.torch7 import Sizes, fitting_sizes, import_torch7
from hvx.importers.torch7_file import read_tensor
from hvx.importers.torch7_parts import read_prepro
from hvx.models.checkpoint import VQAModel, load_checkpoint, save_checkpoint

TOLERANCE = 1e-5
BACKBONE = BackboneConfig(architecture="resnet10", node="layer2")
WORDS = ["what", "is", "the", "UNK", "cat", "doing", "?"]
ANSWERS = ["yes", "no", "2", "sleeping", "red"]
EMBEDDING, HIDDEN, JOINT, CHANNELS = 6, 7, 4, 128
SMALL = {"embedding": EMBEDDING, "hidden": HIDDEN, "joint": JOINT, "channels": CHANNELS}


# The container, from its definition.


def int32(value: int) -> bytes:
    return struct.pack("<i", value)


def int64(value: int) -> bytes:
    return struct.pack("<q", value)


def string(text: bytes) -> bytes:
    return int32(len(text)) + text


def number(value: float) -> bytes:
    return int32(1) + struct.pack("<d", value)


def text(value: bytes) -> bytes:
    return int32(2) + string(value)


def table(index: int, *keys_and_values: bytes) -> bytes:
    return int32(3) + int32(index) + int32(len(keys_and_values) // 2) + b"".join(keys_and_values)


def torch_object(index: int, name: str, body: bytes) -> bytes:
    return int32(4) + int32(index) + string(b"V 1") + string(name.encode()) + body


def storage(values: Any, kind: str = "Float", index: int = 2, count: int | None = None) -> bytes:
    raw = np.asarray(values, "<f8" if "Double" in kind else "<f4")
    return torch_object(
        index, f"torch.{kind}Storage", int64(len(raw) if count is None else count) + raw.tobytes()
    )


def tensor(
    values: Any, kind: str = "Float", *, index: int = 1, size: int | None = None, stride: int = 1,
    offset: int = 1, own: bytes | None = None,
) -> bytes:  # fmt: skip
    """A tensor of one dimension over a storage of ``values``, or over the object ``own``."""
    size = len(values) if size is None else size
    under = storage(values, kind, index + 1) if own is None else own
    return torch_object(
        index, f"torch.{kind}Tensor", int32(1) + int64(size) + int64(stride) + int64(offset) + under
    )


@pytest.fixture
def file(tmp_path: Path) -> Callable[[bytes], Path]:
    def written(data: bytes) -> Path:
        (tmp_path / "p.t7").write_bytes(data)
        return tmp_path / "p.t7"

    return written


@pytest.mark.parametrize("kind", ["Float", "Double", "Cuda", "CudaDouble"])
def test_a_vector_is_read_as_float32(file: Callable[[bytes], Path], kind: str) -> None:
    found = read_tensor(file(tensor([1.5, -2.0, 0.1], kind)))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([1.5, -2.0, 0.1], np.float32))


def test_a_vector_may_be_part_of_its_storage(file: Callable[[bytes], Path]) -> None:
    found = read_tensor(file(tensor(range(10), size=3, stride=3, offset=3)))
    np.testing.assert_array_equal(found, [2, 5, 8])
    found = read_tensor(file(tensor(range(4), size=1, stride=0, offset=4)))
    np.testing.assert_array_equal(found, [3])


def test_the_only_tensor_of_a_table_is_read_whatever_else_is_in_it(file: Callable[[bytes], Path]) -> None:
    data = table(
        1,
        *(text(b"epoch"), number(12)),
        *(text(b"done"), int32(5) + int32(1)),
        *(number(1), table(2, number(1), int32(0))),
        *(text(b"params"), tensor([4.0, 5.0], index=3)),
        *(text(b"again"), int32(4) + int32(3)),
        *(text(b"self"), int32(3) + int32(1)),
    )
    np.testing.assert_array_equal(read_tensor(file(data)), [4, 5])


def test_a_storage_may_stand_earlier_in_the_file(file: Callable[[bytes], Path]) -> None:
    shared = tensor([], index=2, size=2, offset=2, own=int32(4) + int32(3))
    data = table(1, number(1), storage([7.0, 8.0, 9.0], index=3), number(2), shared)
    np.testing.assert_array_equal(read_tensor(file(data)), [8, 9])


def _nested(depth: int) -> bytes:
    """Tables, each the only value of the one around it."""
    return b"".join(int32(3) + int32(i) + int32(1) + number(1) for i in range(depth)) + int32(0)


GOOD = tensor([1.0, 2.0, 3.0])
BAD = {
    "empty": (b"", "is empty"),
    "text": (b"hello, world", "at byte 0: expected an object's type"),
    "an ASCII .t7": (b"4\n1\n3\nV 1\n16\ntorch.FloatTensor\n1\n3\n", "binary .t7 file"),
    "a pickle": (pickle.dumps([1, 2], protocol=2), "binary .t7 file"),
    "cut in the values": (GOOD[:-1], "1 to the 2 values that are left, found 3"),
    "cut in the head": (GOOD[:20], "a class name"),
    "more after it": (GOOD + b"\0\0", "expected the file's end, found 2 more bytes"),
    "nil": (int32(0), "expected one tensor of parameters, found 0"),
    "two tensors": (
        table(1, number(1), tensor([1.0], index=2), number(2), tensor([1.0], index=4)),
        "expected one tensor of parameters, found 2",
    ),
    "a storage alone": (storage([1.0]), "expected one tensor of parameters, found 0"),
    "a function": (int32(8) + int32(1) + string(b"\x1bLua") + int32(0), r"a Lua function \(type 8\)"),
    "a network": (torch_object(1, "nn.Sequential", table(2)), "found 'nn.Sequential'"),
    "long integers": (tensor([1.0], "Long"), "found 'torch.LongTensor'"),
    "a version to come": (GOOD.replace(b"V 1", b"V 2"), "version 'V 1' of a torch object, found 'V 2'"),
    "a class name without end": (
        int32(4) + int32(1) + string(b"V 1") + string(b"x" * 100),
        "expected a class name, found 100 bytes",
    ),
    "a string of negative length": (int32(2) + int32(-1), r"expected a string \(-1 bytes\), found 0 bytes"),
    "a string of 2 GB": (int32(2) + int32(2**31 - 1), "expected a string"),
    "a table of 2 milliards": (int32(3) + int32(1) + int32(2**31 - 1), "a table's count"),
    "a table of -1": (int32(3) + int32(1) + int32(-1), "a table's count"),
    "a matrix": (
        torch_object(1, "torch.FloatTensor", int32(2) + 2 * int64(1) + 2 * int64(1) + int64(1)),
        "a tensor of one dimension, found one of 2",
    ),
    "an empty tensor": (
        torch_object(1, "torch.FloatTensor", int32(0) + int64(0) + int32(0)),
        "a tensor of one dimension, found one of 0",
    ),
    "no storage": (tensor([], size=1, own=int32(0)), "expected a torch.FloatStorage, found another object"),
    "itself as its storage": (tensor([], size=1, own=int32(4) + int32(1)), "found another object"),
    "another storage": (
        tensor([], size=1, own=storage([1.0], "Double")),
        "expected a torch.FloatStorage, found torch.DoubleStorage",
    ),
    "a storage of nothing": (tensor([]), "a storage's count"),
    "a huge storage": (tensor([], size=1, own=storage([1.0], count=2**62)), "a storage's count"),
    "a negative storage": (tensor([], size=1, own=storage([1.0], count=-1)), "a storage's count"),
    "one too many": (tensor([1.0, 2.0], size=3), r"inside of its storage of 2, found size 3"),
    "a negative size": (tensor([1.0, 2.0], size=-1), "found size -1"),
    "no numbers": (tensor([1.0, 2.0], size=0), "found size 0"),
    "one number over and over": (tensor([1.0], size=10**15, stride=0), "stride 0"),
    "backwards": (tensor([1.0, 2.0], stride=-1, offset=2), "stride -1"),
    "a stride beyond the end": (tensor([1.0, 2.0], size=2, stride=2**62), "stride 4,611,"),
    "an offset of 0": (tensor([1.0, 2.0], offset=0), "offset 0"),
    "an offset beyond the end": (tensor([1.0, 2.0], size=1, offset=3), "offset 3"),
    "deep": (_nested(100_000), "a nesting deeper than 16"),
    "many": (int32(3) + int32(1) + int32(60_000) + int32(0) * 120_000, "more than 100,000 objects"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_is_no_vector_is_refused_by_the_place_where_it_is_not(
    file: Callable[[bytes], Path], case: str
) -> None:
    data, named = BAD[case]
    with pytest.raises(HvxError, match=named) as caught:
        read_tensor(file(data))
    assert "p.t7" in str(caught.value) and "\n" not in str(caught.value)


def test_an_absent_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.t7", tmp_path):
        with pytest.raises(HvxError, match="no such file"):
            read_tensor(path)


def _damaged(data: bytes, chance: random.Random) -> bytes:
    """Cut, or with a few fields overwritten by values that hurt."""
    changed = bytearray(data)
    if chance.random() < 0.2:
        return bytes(changed[: chance.randrange(1, len(changed))])
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(changed))
        field = chance.choice(
            [
                int32(chance.choice([-1, 0, 1, 2, 3, 4, 5, 6, 255, 2**31 - 1, -(2**31)])),
                int64(chance.choice([-1, 0, 1, 2, 2**31, 2**62, 2**63 - 1, -(2**63)])),
                bytes([chance.randrange(256)]),
            ]
        )
        changed[at : at + len(field)] = field
    return bytes(changed)


def test_damage_anywhere_leads_to_a_vector_or_a_refusal_and_to_no_large_allocation(
    file: Callable[[bytes], Path],
) -> None:
    chance = random.Random(5)
    whole = [
        GOOD,
        tensor(range(20), "Double", size=4, stride=5, offset=2),
        table(
            1, text(b"a"), tensor([1.0, 2.0], index=2), text(b"b"), int32(4) + int32(3), number(1), number(2)
        ),
    ]
    read, refused = 0, []
    tracemalloc.start()
    try:
        for _ in range(4000):
            data = _damaged(chance.choice(whole), chance)
            try:
                found = read_tensor(file(data)).copy()
            except HvxError as error:
                refused.append(str(error))
            else:
                assert 1 <= found.size <= len(data) // 4
                read += 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read > 200 and len(refused) > 200
    assert not [line for line in refused if "\n" in line]
    assert peak < 8 * 2**20


# The model.


def _layout(glimpses: int, words: int, answers: int) -> list[tuple[str, tuple[int, ...]]]:
    """The parameters in the order of the vector, by names of this test's own."""
    e, h, c, m, g = EMBEDDING, HIDDEN, JOINT, CHANNELS, glimpses
    return [
        ("table", (words + 1, e)),
        *(("Wr", (h, e)), ("br", (h,)), ("Wz", (h, e)), ("bz", (h,))),
        *(("Ur", (h, h)), ("Uz", (h, h)), ("Wh", (h, e)), ("bh", (h,)), ("Uh", (h, h))),
        *(("Aq", (c, h)), ("aq", (c,)), ("Av", (c, m)), ("av", (c,)), ("P", (g, c)), ("p", (g,))),
        *(("Q", (c * g, h)), ("q", (c * g,))),
        *(item for i in range(g) for item in ((f"V{i}", (c, m)), (f"v{i}", (c,)))),
        *(("C", (answers, c * g)), ("c", (answers,))),
    ]


def _vector(glimpses: int, words: int = len(WORDS), answers: int = len(ANSWERS)) -> np.ndarray:
    count = sum(int(np.prod(shape)) for _, shape in _layout(glimpses, words, answers))
    return (np.random.default_rng(7).standard_normal(count) * 0.4).astype(np.float32)


def _torch7_forward(
    vector: np.ndarray, glimpses: int, features: Tensor, aligned: list[int]
) -> tuple[dict[str, Tensor], Tensor]:
    """One question, right-aligned after zeros, on one image's features (M, S, S); float64.

    Returns what the network computes, and its word embeddings (T, E) without the zeros.
    """
    p, start = {}, 0
    for name, shape in _layout(glimpses, len(WORDS), len(ANSWERS)):
        size = int(np.prod(shape))
        p[name] = torch.from_numpy(vector[start : start + size].astype(np.float64)).reshape(shape)
        start += size
    assert start == len(vector)
    words = torch.stack([p["table"][row] for row in aligned if row != 0]).requires_grad_()
    h = torch.zeros(HIDDEN, dtype=torch.float64)
    for x in words:
        r = torch.sigmoid(p["Wr"] @ x + p["br"] + p["Ur"] @ h)
        z = torch.sigmoid(p["Wz"] @ x + p["bz"] + p["Uz"] @ h)
        candidate = torch.tanh(p["Wh"] @ x + p["bh"] + p["Uh"] @ (r * h))
        h = (1 - z) * candidate + z * h
    cells = features.flatten(1).T
    attended = torch.tanh(p["Aq"] @ h + p["aq"]) * torch.tanh(cells @ p["Av"].T + p["av"])
    attention = torch.softmax(attended @ p["P"].T + p["p"], dim=0).T
    pooled = attention @ cells
    visual = torch.cat([torch.tanh(p[f"V{g}"] @ pooled[g] + p[f"v{g}"]) for g in range(glimpses)])
    textual = torch.tanh(p["Q"] @ h + p["q"])
    out = {
        "visual": visual,
        "textual": textual,
        "product": visual * textual,
        "attention": attention.unflatten(1, features.shape[1:]),
        "logits": p["C"] @ (visual * textual) + p["c"],
    }
    return out, words


@pytest.fixture
def prepro(tmp_path: Path) -> Path:
    path = tmp_path / "data_prepro.json"
    path.write_text(json.dumps(_tree(WORDS, ANSWERS)))
    return path


def _tree(words: list[str], answers: list[str]) -> dict[str, Any]:
    """As the preprocessing wrote it: the order of the keys is anyone's."""
    numbered = {
        key: {str(i): value for i, value in reversed(list(enumerate(values, start=1)))}
        for key, values in (("ix_to_word", words), ("ix_to_ans", answers))
    }
    return {**numbered, "unique_img_test": ["test2015/a.jpg"]}


def _import(path: Path, prepro: Path, **more: Any) -> VQAModel:
    return import_torch7(path, prepro, BACKBONE, **(SMALL | more))


@pytest.mark.parametrize(("glimpses", "given"), [(1, None), (2, 2), (2, None), (3, 3)])
def test_the_import_computes_what_the_torch7_network_computes(
    file: Callable[[bytes], Path], prepro: Path, tmp_path: Path, glimpses: int, given: int | None
) -> None:
    vector = _vector(glimpses)
    save_checkpoint(tmp_path / "m.safetensors", _import(file(tensor(vector, "Cuda")), prepro, glimpses=given))
    model = load_checkpoint(tmp_path / "m.safetensors")
    assert model.config.glimpses == glimpses

    # Features as they are before a last ReLU: of both signs.
    features = torch.randn(2, CHANNELS, 3, 3, generator=torch.Generator().manual_seed(1))
    rows = torch.tensor([[5, 2, 3, 7], [1, 6, 0, 0]])
    lengths, images = torch.tensor([4, 2]), torch.tensor([1, 0])
    with torch.no_grad():
        found = head_gradients(model.head, features, images, rows, lengths)
    for i, aligned in enumerate(([0, 0, 5, 2, 3, 7], [0, 0, 0, 0, 1, 6])):
        own = features[images[i]].double().requires_grad_()
        expected, words = _torch7_forward(vector, glimpses, own, aligned)
        for name, value in expected.items():
            torch.testing.assert_close(
                getattr(found.joint, name)[i].double(), value.detach(), rtol=TOLERANCE, atol=TOLERANCE
            )
        constant = expected["product"].detach()
        for name, at, gradient in (
            ("textual", words, found.embeddings[i, : lengths[i]]),
            ("visual", own, found.features[0][i]),
        ):
            cotangent = expected[name].detach() - constant
            (true,) = torch.autograd.grad(expected[name], at, cotangent, retain_graph=True)
            assert true.abs().max() > 1e-3
            torch.testing.assert_close(gradient.double(), true, rtol=TOLERANCE, atol=TOLERANCE)


def test_the_model_says_what_it_is_and_where_it_comes_from(
    file: Callable[[bytes], Path], prepro: Path
) -> None:
    model = _import(file(tensor(_vector(2))), prepro)
    config = model.config
    assert (config.form, config.glimpses, config.joint) == ("torch7", 2, JOINT)
    assert (config.encoder.tokenizer, config.encoder.candidate) == ("nltk", "reset_before")
    assert (config.encoder.sentences, config.encoder.max_tokens) == (True, 26)
    assert (config.visual_projection, config.product_activation) == ("per_glimpse", "none")
    assert (config.image.size, config.image.interpolation) == (448, "bicubic")
    assert (list(model.vocabulary.words), model.answers) == (WORDS, ANSWERS)
    assert model.training["imported_from"] == "torch7" and model.training["file"] == "p.t7"
    assert len(model.training["sha256"]) == 64


def test_the_row_of_padding_does_not_matter(file: Callable[[bytes], Path], prepro: Path) -> None:
    vector = _vector(2)
    vector[:EMBEDDING] = 1e6
    model = _import(file(tensor(vector)), prepro)
    assert model.head.encoder.table.weight[0].abs().max() == 0
    torch.testing.assert_close(
        model.head.encoder.table.weight[1],
        torch.from_numpy(vector[EMBEDDING : 2 * EMBEDDING]),
        rtol=0,
        atol=0,
    )


def test_the_sizes_of_the_published_network_are_those_of_its_layers() -> None:
    """Counted out by hand for V = 10, O = 2000, G = 2 at full width."""
    gru = 3 * (2400 * 620 + 2400) + 3 * 2400 * 2400
    attention = (2400 * 1200 + 1200) + (2048 * 1200 + 1200) + (1200 * 2 + 2)
    joint = (2400 * 2400 + 2400) + 2 * (2048 * 1200 + 1200)
    classifier = 2400 * 2000 + 2000
    sizes = Sizes(10, 2000, 2, embedding=620, hidden=2400, joint=1200, channels=2048)
    assert sizes.count == 11 * 620 + gru + attention + joint + classifier


def _full(words: int, answers: int, glimpses: int) -> Sizes:
    return Sizes(words, answers, glimpses, embedding=620, hidden=2400, joint=1200, channels=2048)


@pytest.mark.parametrize(
    "true", [(13321, 1998, 2), (13320, 2000, 2), (13321, 2000, 4), (13321, 3000, 2), (12802, 3000, 2)]
)
def test_the_sizes_that_would_fit_name_the_true_ones_first(true: tuple[int, int, int]) -> None:
    length = _full(*true).count
    found = fitting_sizes(_full(13321, 2000, 2), length)
    assert found[0] == _full(*true)
    assert all(sizes.count == length for sizes in found)


@pytest.mark.parametrize("glimpses", [None, 2])
def test_a_vector_of_another_length_is_refused_with_what_would_fit(
    file: Callable[[bytes], Path], prepro: Path, glimpses: int | None
) -> None:
    path = file(tensor(_vector(2, words=9)))
    with pytest.raises(HvxError) as caught:
        _import(path, prepro, glimpses=glimpses)
    made, found = len(_vector(2)), len(_vector(2, words=9))
    said = str(caught.value)
    assert f"p.t7: {found:,} parameters; data_prepro.json has 7 words and 5 answers" in said
    assert f"with G = 2 make {made:,}; would fit: 9 words and 5 answers with G = 2" in said
    assert said.count(" with G = ") <= 4 and "\n" not in said


def test_another_number_of_glimpses_than_the_given_is_named(
    file: Callable[[bytes], Path], prepro: Path
) -> None:
    with pytest.raises(HvxError, match="would fit: 7 words and 5 answers with G = 3"):
        _import(file(tensor(_vector(3))), prepro, glimpses=2)


def test_a_vector_that_fits_nothing_is_refused_with_the_sizes_it_was_held_against(
    file: Callable[[bytes], Path], prepro: Path
) -> None:
    with pytest.raises(HvxError, match="nothing near that; is it of embeddings 6, GRU 7, joint 4"):
        _import(file(tensor([1.0, 2.0, 3.0])), prepro)


@pytest.mark.parametrize("glimpses", [0, -1, 9, 10**9])
def test_glimpses_out_of_range_are_refused(
    file: Callable[[bytes], Path], prepro: Path, glimpses: int
) -> None:
    with pytest.raises(HvxError, match=f"glimpses: expected 1 to 8, not {glimpses}"):
        _import(file(tensor(_vector(2))), prepro, glimpses=glimpses)


@pytest.mark.parametrize(("value", "kind"), [(np.nan, "Float"), (np.inf, "Cuda"), (1e300, "Double")])
def test_parameters_that_are_not_finite_are_refused_by_the_tensor_they_are_in(
    file: Callable[[bytes], Path], prepro: Path, value: float, kind: str
) -> None:
    vector = _vector(2).astype(np.float64)
    vector[8 * EMBEDDING + 3] = value
    with pytest.raises(HvxError, match=r"p\.t7: .*finite.* in W_r"):
        _import(file(tensor(vector, kind)), prepro)


def test_features_of_another_width_than_the_backbones_are_refused(
    file: Callable[[bytes], Path], prepro: Path
) -> None:
    with pytest.raises(HvxError, match="the head reads features of 128 channels"):
        import_torch7(
            file(tensor(_vector(2))), prepro, BackboneConfig(architecture="resnet10", node="layer1"), **SMALL
        )


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("nonsense", "not valid JSON"),
        ("[1]", "expected an object with the keys 'ix_to_word' and 'ix_to_ans'"),
        ('{"ix_to_word": {"1": "a"}}', "expected 'ix_to_ans'"),
        ('{"ix_to_word": ["a"], "ix_to_ans": {"1": "b"}}', "expected 'ix_to_word'"),
        ('{"ix_to_word": {}, "ix_to_ans": {"1": "b"}}', "expected 'ix_to_word'"),
        ('{"ix_to_word": {"0": "a", "1": "b"}, "ix_to_ans": {"1": "b"}}', "2 entries, but none numbered '2'"),
        ('{"ix_to_word": {"1": "a", "3": "b"}, "ix_to_ans": {"1": "b"}}', "none numbered '2'"),
        ('{"ix_to_word": {"01": "a"}, "ix_to_ans": {"1": "b"}}', "none numbered '1'"),
        ('{"ix_to_word": {"1": "a", "2": "a"}, "ix_to_ans": {"1": "b"}}', "'a' is both '1' and '2'"),
        ('{"ix_to_word": {"1": "a"}, "ix_to_ans": {"1": 5}}', "ix_to_ans: '1' is no text, but 5"),
        ('{"ix_to_word": {"1": "a"}, "ix_to_ans": {"1": "\\ud800"}}', "'1' is no text"),
        ('{"ix_to_word": {"1": "a\\u0000"}, "ix_to_ans": {"1": "b"}}', "'1' is no text"),
    ],
)
def test_a_vocabulary_that_is_not_numbered_texts_is_refused(prepro: Path, content: str, named: str) -> None:
    prepro.write_text(content)
    with pytest.raises(HvxError, match=named) as caught:
        read_prepro(prepro)
    assert "data_prepro.json" in str(caught.value) and "\n" not in str(caught.value)
