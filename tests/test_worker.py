"""The work on a shard: what is computed together, what is stored, which questions fail and why."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from hvx.cli import main
from hvx.config import BackboneConfig, Config, HeatmapConfig, ModelConfig
from hvx.data.images import Decoded, load_input
from hvx.data.questions import Question, read_questions
from hvx.data.tokenize import Vocabulary
from hvx.errors import BadImage, HvxError, OutOfMemory
from hvx.explain.explainer import Explainer, Explanations
from hvx.explain.hadamard import head_gradients
from hvx.files import sha256
from hvx.models.backbone import build_backbone
from hvx.models.checkpoint import VQAModel, load_checkpoint, save_checkpoint
from hvx.models.networks import new_head
from hvx.run import source
from hvx.run import worker as module
from hvx.run.columns import BufferPool, ShardColumns
from hvx.run.identity import RunIdentity, versions
from hvx.run.shards import Shard, batches_of_images, plan_shards
from hvx.run.worker import ShardWorker, _batch_images
from hvx.store.reader import RunReader
from hvx.store.schema import FIELDS

CPU = torch.device("cpu")
ANSWERS = ["yes", "no", "red", "two", "dog", "cat", "left"]
COUNTS = {3: 1, 1: 3, 2: 2, 5: 1}
"""Questions on each image, in the order in which the split asks about them."""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A split of four photographs in a folder of their own, and MRN with three blocks of random weights."""
    root = tmp_path_factory.mktemp("worker")
    (root / "images" / "deep").mkdir(parents=True)
    chance = np.random.default_rng(0)
    for image_id in COUNTS:
        pixels = chance.integers(0, 256, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(root / "images" / "deep" / f"p{image_id}.png")
    asked = [(100 * image_id + n, image_id) for image_id, count in COUNTS.items() for n in range(count)]
    words = ["red", "dog red", "red dog dog"]
    rows = [{"question_id": q, "image_id": i, "question": f"{words[q % 3]}?"} for q, i in asked]
    notes = [
        {
            "question_id": q,
            "image_id": i,
            "multiple_choice_answer": f"truth {q}",
            "question_type": f"question type {q}",
            "answer_type": f"answer type {q}",
            "answers": [{"answer": "yes"}] * 10,
        }
        for q, i in asked
    ]
    (root / "questions.json").write_text(json.dumps({"questions": rows}))
    (root / "annotations.json").write_text(json.dumps({"annotations": notes}))
    tree = {
        "root": root,
        "checkpoint": "m.safetensors",
        "splits": {
            "val": {
                "questions": "questions.json",
                "annotations": "annotations.json",
                "images": "images",
                "image_name": "deep/p{image_id}.png",
            }
        },
        "model": {
            "network": "mrn",
            "image": {"size": 64},
            "encoder": {"embedding": 3, "hidden": 4},
            "joint": 5,
            "backbone": {"architecture": "squeezenet1_1", "node": "features.3"},
        },
        "explain": {"run": "run", "batch_images": 3, "workers": 0, "gradient": True},
    }
    made = Config.model_validate(tree)
    torch.manual_seed(1)
    model = ModelConfig.model_validate(tree["model"])
    head = new_head(model, 128, 4, len(ANSWERS)).eval()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    backbone = build_backbone(BackboneConfig.model_validate(tree["model"]["backbone"]))
    words_known = Vocabulary(("red", "dog", "?", "UNK"))
    save_checkpoint(root / "m.safetensors", VQAModel(model, backbone, head, words_known, ANSWERS))
    return made


def identity(config: Config) -> RunIdentity:
    return RunIdentity({"checkpoint_sha256": sha256(config.path(config.checkpoint))}, versions())


def changed(config: Config, **explain: Any) -> Config:
    assert config.explain is not None
    return config.model_copy(update={"explain": config.explain.model_copy(update=explain)})


def shard_of(config: Config) -> Shard:
    (shard,) = plan_shards(read_questions(config.split("val")), 100)
    return replace(shard, number=7)


# What is stored


def test_each_question_is_stored_with_what_the_network_says_of_it(config: Config, tmp_path: Path) -> None:
    """Against the network itself, one question at a time, and the split's own files."""
    shard, path = shard_of(config), tmp_path / "00007.h5"
    ShardWorker(config, CPU, identity(config)).explain(shard, path)
    model = _guided(load_checkpoint(config.path(config.checkpoint)))
    questions = [question for _, own in shard.images for question in own]
    with h5py.File(path) as file:
        absent = ABSENT | {"attention", "textual_attention", "word_heatmaps"}
        assert set(file) & set(FIELDS) == set(FIELDS) - absent
        assert (file.attrs["shard"], file.attrs["run_digest"]) == (7, identity(config).digest)
        assert json.loads(file.attrs["product"]) == "constant"
        assert json.loads(file.attrs["crop"])["scaled_to"] == [64, 64]
        assert file.attrs["failures"] == "[]"
        assert file["question_id"].asstr()[:].tolist() == [str(q.question_id) for q in questions]
        for row, question in enumerate(questions):
            number = question.question_id
            photo = config.root / "images" / "deep" / f"p{question.image_id}.png"
            texts = {name: file[name].asstr()[row] for name in FIELDS if FIELDS[name].fill == ""}
            probabilities, gradients = _alone(model, load_input(photo, model.config.image), question)
            best = np.argsort(-probabilities)[:5]
            tokens = question.question.replace("?", " ?").split()
            length = len(tokens)
            assert texts["image_path"] == f"deep/p{question.image_id}.png"
            assert texts["image_digest"] == hashlib.sha256(photo.read_bytes()).hexdigest()
            assert texts["question"] == question.question
            assert texts["question_type"] == f"question type {number}"
            assert texts["answer_type"] == f"answer type {number}"
            assert texts["ground_truth"] == f"truth {number}"
            assert texts["answer"] == ANSWERS[best[0]]
            assert texts["top_answers"].tolist() == [ANSWERS[place] for place in best]
            assert texts["tokens"].tolist() == tokens + [""] * (4 - length)
            assert texts["image_id"] == str(question.image_id)
            assert file["length"][row] == length
            assert file["zero_gradient"][row] == 0
            assert file["probability"][row] == pytest.approx(probabilities[best[0]], abs=1e-6)
            np.testing.assert_allclose(file["top_probabilities"][row], probabilities[best], atol=1e-6)
            assert np.isnan(file["token_z"][row, length:]).all()
            saliency = file["token_saliency"][row, :length].astype(float)
            expected = (saliency - saliency.mean()) / saliency.std(ddof=1)
            np.testing.assert_allclose(file["token_z"][row, :length], expected, atol=1e-3)
            maps = [np.abs(gradient).sum(0) for gradient in gradients]
            assert min(np.abs(maps[n] - maps[n - 1]).max() for n in range(3)) > 0.1  # three maps, not one
            np.testing.assert_allclose(file["block_heatmaps"][row], maps, rtol=1e-3, atol=1e-2)
            np.testing.assert_allclose(file["heatmap"][row], maps[-1], rtol=1e-3, atol=1e-2)
            np.testing.assert_allclose(file["gradient"][row], gradients[-1], rtol=1e-3, atol=1e-2)


def _alone(model: VQAModel, pixels: torch.Tensor, question: Question) -> tuple[np.ndarray, list[np.ndarray]]:
    """The answers' probabilities, and each block's gradient (C, H, W) by autograd with hooks at the ReLUs."""
    pixels = pixels[None].requires_grad_()
    rows = torch.tensor([model.vocabulary.rows(question.question.replace("?", " ?").split())])
    features = model.backbone(pixels)
    lengths = torch.tensor([rows.shape[1]])
    found = head_gradients(model.head, features.detach(), torch.tensor([0]), rows, lengths)
    gradients = []
    for cotangent in found.features:
        (guided,) = torch.autograd.grad(features, pixels, cotangent, retain_graph=True)
        centered = guided[0] - guided[0].mean((1, 2), keepdim=True)
        gradients.append((centered / guided[0].std((1, 2), keepdim=True)).numpy())
    return found.joint.logits[0].softmax(0).detach().numpy(), gradients


def _guided(model: VQAModel) -> VQAModel:
    for module_ in model.backbone.modules():
        if isinstance(module_, torch.nn.ReLU):
            module_.inplace = False
            module_.register_full_backward_hook(lambda _, inward, __: (inward[0].clamp(min=0),))
    return model


def explanations(
    count: int = 3, answers: int = 5, tokens: tuple[int, ...] = (2, 3, 1), optional: bool = True
) -> Explanations:
    """Made-up explanations in which no two numbers are the same; NaN and 0 beyond each question's tokens."""
    longest = max(tokens)
    chance = torch.Generator().manual_seed(count + answers)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.rand(count, *shape, generator=chance)

    saliency, z, words = numbers(longest), numbers(longest), numbers(longest)
    for row, length in enumerate(tokens):
        saliency[row, length:], z[row, length:], words[row, length:] = 0, torch.nan, 0
    return Explanations(
        tokens=[[f"token {row} {place}" for place in range(length)] for row, length in enumerate(tokens)],
        saliency=saliency,
        z=z,
        attention=numbers(2, 3, 3) if optional else None,
        heatmap=numbers(4, 5),
        gradient=numbers(3, 4, 5) if optional else None,
        answers=[[f"answer {row} {place}" for place in range(answers)] for row in range(count)],
        probabilities=numbers(answers),
        zero_image_gradient=torch.tensor([False, True, True][:count]),
        zero_word_gradient=torch.tensor([True, False, True][:count]),
        unknown=[[place == 1 for place in range(length)] for length in tokens],
        block_heatmaps=numbers(2, 4, 5) if optional else None,
        textual_attention=words if optional else None,
        word_heatmaps=[torch.rand(length, 4, 5, generator=chance) for length in tokens] if optional else None,
    )


def columns_of(
    made: Explanations, stored: HeatmapConfig | None = None, questions: list[Question] | None = None
) -> tuple[dict[str, np.ndarray], dict[int, str]]:
    """The columns of made-up explanations, each of ``ASKED``, and why others have no row."""
    count = len(made.tokens)
    columns = ShardColumns(questions or [ASKED] * count, stored or HeatmapConfig())
    columns.add(range(count), made)
    return columns.done(["d"] * count), columns.odd


ASKED = Question(31, 41, "deep/p41.png", "how many?", "truth", ("a", "b"), "question type", "answer type")


@pytest.mark.parametrize(("row", "length", "zero"), [(0, 2, 2), (1, 3, 1), (2, 1, 3)])
def test_a_row_of_the_columns_is_one_of_the_explanations(row: int, length: int, zero: int) -> None:
    made = explanations()
    found, _ = columns_of(made)
    filled = np.float32(np.nan)
    expected: dict[str, Any] = {
        "question_id": 31,
        "image_id": 41,
        "question": "how many?",
        "image_path": "deep/p41.png",
        "image_digest": "d",
        "answer": f"answer {row} 0",
        "ground_truth": "truth",
        "question_type": "question type",
        "answer_type": "answer type",
        "probability": made.probabilities[row, 0].numpy(),
        "top_answers": [f"answer {row} {place}" for place in range(5)],
        "top_probabilities": made.probabilities[row].numpy(),
        "tokens": made.tokens[row] + [""] * (3 - length),
        "length": np.int32(length),
        "token_saliency": [*made.saliency[row, :length].numpy(), *[filled] * (3 - length)],
        "token_z": [*made.z[row, :length].numpy(), *[filled] * (3 - length)],
        "heatmap": made.heatmap[row].numpy().astype(np.float16),
        "zero_gradient": np.uint8(zero),
        "unknown": np.array([place == 1 for place in range(length)] + [0] * (3 - length), np.uint8),
    }
    assert made.attention is not None and made.textual_attention is not None
    assert made.block_heatmaps is not None and made.gradient is not None
    assert made.word_heatmaps is not None
    expected |= {
        "attention": made.attention[row].numpy(),
        "textual_attention": [*made.textual_attention[row, :length].numpy(), *[filled] * (3 - length)],
        "block_heatmaps": made.block_heatmaps[row].numpy().astype(np.float16),
        "gradient": made.gradient[row].numpy().astype(np.float16),
        "word_heatmaps": made.word_heatmaps[row].numpy().astype(np.float16),
    }
    assert set(found) == set(expected) == set(FIELDS) - ABSENT
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name][row], value, name)
        field = FIELDS[name]
        if not field.ragged:
            assert found[name].dtype == (object if field.fill == "" else field.dtype), name


ABSENT = {
    "heatmap_scale", "block_heatmap_scale", "word_heatmap_scale", "score", "word_attention",
    "phrase_attention",
}  # fmt: skip
"""Columns of maps in 8 bits, of a network with a score, and of one that attends to words on three levels."""


def test_columns_of_a_small_network_have_what_the_network_has() -> None:
    made = explanations(answers=2, optional=False)
    made.zero_image_gradient[0] = made.zero_word_gradient[0] = False
    found, _ = columns_of(made)
    assert not {"attention", "textual_attention", "block_heatmaps", "gradient", "word_heatmaps"} & set(found)
    assert found["top_answers"][0].tolist() == ["answer 0 0", "answer 0 1", "", "", ""]
    expected = [*made.probabilities[0].tolist(), *[float("nan")] * 3]
    np.testing.assert_array_equal(found["top_probabilities"][0], np.array(expected, np.float32))
    assert found["zero_gradient"][0] == 0


def test_batches_come_in_any_order_and_the_rows_stand_in_the_shards() -> None:
    made = explanations(tokens=(2, 3, 1))
    other = explanations(answers=4, tokens=(1, 2, 5))
    questions = [msgspec.structs.replace(ASKED, question_id=n) for n in range(7)]
    columns = ShardColumns(questions, HeatmapConfig())
    columns.add([5, 0, 2], made)
    columns.add([1, 6, 4], other)  # question 3 was on an image that could not be read
    found = columns.done([f"d{n}" for n in range(7)])
    assert found["question_id"].tolist() == [0, 1, 2, 4, 5, 6]
    assert found["image_digest"].tolist() == ["d0", "d1", "d2", "d4", "d5", "d6"]
    assert found["length"].tolist() == [3, 1, 1, 5, 2, 2]
    assert found["tokens"].shape == (6, 5)
    rows = [(made, 1), (other, 0), (made, 2), (other, 2), (made, 0), (other, 1)]
    for place, (source_, row) in enumerate(rows):
        length = len(source_.tokens[row])
        assert found["tokens"][place].tolist() == source_.tokens[row] + [""] * (5 - length)
        np.testing.assert_array_equal(found["token_z"][place, :length], source_.z[row, :length])
        assert np.isnan(found["token_z"][place, length:]).all()
        np.testing.assert_array_equal(found["heatmap"][place], source_.heatmap[row].half())
        assert source_.word_heatmaps is not None
        np.testing.assert_array_equal(found["word_heatmaps"][place], source_.word_heatmaps[row].half())


def test_a_nan_in_one_explanation_lets_none_overflow_in_another() -> None:
    made = explanations()
    assert made.heatmap is not None
    made.heatmap[0, 0, 0], made.heatmap[1, 0, 0] = 1e6, torch.nan
    found, odd = columns_of(made)
    assert list(odd) == [1]
    assert found["heatmap"][0, 0, 0] == 65504 and np.isfinite(found["heatmap"]).all()


def test_memory_of_an_earlier_shard_is_used_again_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvx.run.columns._LARGE", 1)
    expected, _ = columns_of(explanations())
    pool, count = BufferPool(), len(explanations().tokens)
    # A smaller buffer must not be taken for a larger column, nor the largest for a small one.
    pool.give([np.full(size, 0x7B, np.uint8) for size in (10**6, 3, 10**5, *[10**4] * 8)])
    columns = ShardColumns([ASKED] * count, HeatmapConfig(), pool)
    columns.add(range(count), explanations())
    found = columns.done(["d"] * count)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        for value, expected_value in zip(found[name], values, strict=True):  # ragged columns hold arrays
            np.testing.assert_array_equal(value, expected_value, err_msg=name)
    buffers = {id(buffer): len(buffer) for buffer in columns.buffers}
    assert len(buffers) == len(columns.buffers) > 2 and 10**6 not in buffers.values()


def test_numbers_beyond_half_precision_become_its_largest() -> None:
    made = explanations()
    made.heatmap[0, 0, 0] = 1e30
    assert made.gradient is not None
    made.gradient[1, 0, 0, 0] = -1e30
    found, odd = columns_of(made)
    assert odd == {}
    assert found["heatmap"][0, 0, 0] == 65504 and found["gradient"][1, 0, 0, 0] == -65504


PARTS = {
    "probabilities": "the answer's probability",
    "heatmap": "the heat map (Eqs 2, 9)",
    "saliency": "the tokens' saliency (Eqs 3, 10)",
    "z": "the tokens' z-score (Eq. 11)",
    "attention": "the attention",
    "block_heatmaps": "a block's heat map",
    "gradient": "the gradient (Eq. 9)",
    "textual_attention": "the attention to words",
    "word_heatmaps": "a word's heat map",
}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_not_finite_makes_its_own_question_fail(part: str, value: float) -> None:
    made = explanations()
    getattr(made, part)[0].view(-1)[1] = value
    found, odd = columns_of(made)
    assert odd == {
        0: f"{PARTS[part]} is not finite (NaN or infinite): the network's numbers overflow on this question"
    }
    assert found["answer"].tolist() == ["answer 1 0", "answer 2 0"]
    np.testing.assert_array_equal(found["heatmap"], made.heatmap[1:].half())


def test_what_lies_beyond_a_questions_tokens_does_not_count() -> None:
    made = explanations()
    made.saliency[0, 2] = made.z[0, 2] = torch.inf
    assert made.textual_attention is not None
    made.textual_attention[0, 2] = torch.nan
    assert columns_of(made)[1] == {}
    made.saliency[1, 2] = torch.inf
    assert columns_of(made)[1][1].startswith(PARTS["saliency"])
    assert columns_of(explanations(optional=False))[1] == {}


def test_of_several_parts_the_first_is_named() -> None:
    made = explanations()
    made.z[0, 0] = made.heatmap[0, 0, 0] = torch.nan
    assert columns_of(made)[1][0].startswith(PARTS["heatmap"])


def test_tokens_are_padded_to_the_longest_question_that_has_a_row() -> None:
    made = explanations(tokens=(2, 3, 1))
    made.z[1, 0] = torch.nan
    found, _ = columns_of(made)
    assert found["tokens"].tolist() == [["token 0 0", "token 0 1"], ["token 2 0", ""]]
    assert found["token_z"].shape == found["token_saliency"].shape == found["unknown"].shape == (2, 2)


@pytest.mark.parametrize("questions", [[], [ASKED]])
def test_without_a_row_columns_are_empty_and_of_the_same_rank(questions: list[Question]) -> None:
    found = ShardColumns(questions, HeatmapConfig()).done([""] * len(questions))
    assert set(found) == {name for name, field in FIELDS.items() if not field.optional}
    for name, values in found.items():
        assert values.shape == (0,) * (1 + len(FIELDS[name].axes)), name


# Gradients that are zero everywhere


@pytest.mark.parametrize("words", [False, True])
def test_gradients_that_are_zero_everywhere_are_marked_question_by_question(
    config: Config, words: bool
) -> None:
    """A photograph on which every ReLU is dead, and a text branch that ignores its words."""
    model = load_checkpoint(config.path(config.checkpoint))
    bias = next(part.bias for part in model.backbone.modules() if isinstance(part, torch.nn.Conv2d))
    torch.nn.init.constant_(bias, -0.01)
    if words:
        for layer in model.head.textual:  # type: ignore[union-attr]
            torch.nn.init.zeros_(layer.weight)
    torch.manual_seed(0)
    inputs = torch.stack([torch.zeros(3, 64, 64), torch.randn(3, 64, 64)])
    images, questions = [1, 0, 1, 1, 0], ["red dog?", "red dog?", "red", "dog red?", "dog"]
    found = Explainer(model, gradient=True).explain(inputs, images, questions)
    assert found.zero_image_gradient.tolist() == [False, True, False, False, True]
    assert found.zero_word_gradient.tolist() == [words] * 5  # one token: z is 0, its gradient is not
    assert found.gradient is not None
    assert found.gradient.flatten(1).any(1).tolist() == [True, False, True, True, False]
    assert found.z[2, 0] == found.z[4, 0] == 0
    assert found.saliency.any(1).tolist() == [not words] * 5
    stored, _ = columns_of(found)
    bits = 2 if words else 0
    assert stored["zero_gradient"].tolist() == [bits, 1 + bits, bits, bits, 1 + bits]


@pytest.mark.parametrize(("dead", "ignored"), [(False, True), (True, False)])
def test_hvx_explain_counts_the_explanations_that_say_nothing(
    config: Config, tmp_path: Path, dead: bool, ignored: bool
) -> None:
    model = load_checkpoint(config.path(config.checkpoint))
    if dead:
        bias = next(part.bias for part in model.backbone.modules() if isinstance(part, torch.nn.Conv2d))
        torch.nn.init.constant_(bias, -1000)
    if ignored:
        for layer in model.head.textual:  # type: ignore[union-attr]
            torch.nn.init.zeros_(layer.weight)
    save_checkpoint(tmp_path / "m.safetensors", model)
    tree = changed(config, run=tmp_path / "run").model_dump(mode="json", exclude_none=True)
    tree["model"]["backbone"].pop("weights", None)
    (tmp_path / "config.yaml").write_text(json.dumps(tree | {"checkpoint": str(tmp_path / "m.safetensors")}))
    done = CliRunner().invoke(main, ["explain", str(tmp_path / "config.yaml"), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    image = (
        "Eq. 2 (image) is zero everywhere for 7 of 7 questions: their heat maps say nothing "
        "(dead ReLUs, or a saturated tanh or sigmoid)"
    )
    words = image.replace("Eq. 2 (image)", "Eq. 3 (words)").replace("heat maps", "token z-scores")
    assert done.stderr.splitlines() == [image] * dead + [words] * ignored
    with RunReader(tmp_path / "run") as reader:
        assert reader.column("zero_gradient").tolist() == [dead + 2 * ignored] * 7
        assert reader[6].zero_gradient == dead + 2 * ignored


# Which images together


def test_batches_take_the_images_with_most_questions_first_and_keep_the_order_of_equals() -> None:
    images = tuple((n, (ASKED,) * count) for n, count in enumerate([1, 3, 1, 2, 3, 1, 2]))
    shard = Shard(0, images)
    assert batches_of_images(shard, 3) == [[1, 4, 3], [6, 0, 2], [5]]
    assert batches_of_images(shard, 7) == [[1, 4, 3, 6, 0, 2, 5]]
    assert batches_of_images(shard, 1) == [[1], [4], [3], [6], [0], [2], [5]]
    assert batches_of_images(Shard(0, ()), 3) == []
    assert shard.name == "00000.h5"
    assert Shard(123456, ()).name == "123456.h5"


GIB = 2**30


@pytest.mark.parametrize(
    ("device", "free", "each", "expected"),
    [
        # Plenty of memory: 512 MiB on a CPU, 8 GiB on a GPU, and 32 images.
        ("cpu", 64 * GIB, GIB // 8, 4),
        ("cpu", 64 * GIB, GIB // 8 + 1, 3),
        ("cpu", 64 * GIB, GIB // 64, 32),
        ("cpu", 64 * GIB, GIB // 66, 32),
        ("cpu", 64 * GIB, GIB // 62, 31),
        ("cuda", 64 * GIB, GIB, 8),
        ("cuda", 64 * GIB, GIB + 1, 7),
        ("cuda", 64 * GIB, GIB // 4, 32),
        ("cuda", 64 * GIB, GIB // 8, 32),
        # Little: half of what is free, and one image at least.
        ("cuda", 8 * GIB, GIB, 4),
        ("cuda", 8 * GIB - 1, GIB, 3),
        ("cpu", GIB // 2, GIB // 8, 2),
        ("cpu", GIB // 2, GIB, 1),
        ("cpu", 0, GIB, 1),
    ],
)
def test_a_batch_takes_half_of_the_free_memory_and_no_more_than_is_of_use(
    monkeypatch: pytest.MonkeyPatch, device: str, free: int, each: int, expected: int
) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr(module, "free_memory", lambda where: asked.append(where) or free)
    explainer: Any = SimpleNamespace(device=torch.device(device), memory=lambda: each)
    assert _batch_images(explainer) == expected
    assert asked == [torch.device(device)]


@pytest.mark.parametrize(("given", "expected"), [(3, 3), (None, 5)])
def test_the_config_says_how_many_images_or_memory_does(
    config: Config, monkeypatch: pytest.MonkeyPatch, given: int | None, expected: int
) -> None:
    monkeypatch.setattr(module, "_batch_images", lambda explainer: 5)
    assert ShardWorker(changed(config, batch_images=given), CPU, identity(config))._batch == expected


@pytest.mark.parametrize(
    ("device", "workers", "cpus", "expected"),
    [
        ("cpu", None, 16, 1),
        ("cpu", 3, 16, 3),
        ("cpu", 0, 16, 0),
        ("cuda", None, 1, 1),
        ("cuda", None, 2, 1),
        ("cuda", None, 3, 2),
        ("cuda", None, 9, 8),
        ("cuda", None, 16, 8),
        ("cuda", 0, 16, 0),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_images_of_all_shards_are_decoded_in_one_stream(
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    workers: int | None,
    cpus: int,
    expected: int,
    turned: bool,
) -> None:
    calls: list[Any] = []

    def asked(*image_ids: int) -> tuple[Question, ...]:
        return tuple(msgspec.structs.replace(ASKED, image=f"deep/p{image_id}.png") for image_id in image_ids)

    def stream(paths: Any, image: Any, places: Any, workers: int, exif: bool, device: Any) -> Any:
        calls.append((list(paths), image, places, workers, exif, device))
        yield from (Decoded(list(batch), torch.zeros(len(batch)), ["d"] * len(batch), {}) for batch in places)

    monkeypatch.setattr(module, "input_batches", stream)
    monkeypatch.setattr(module, "cpus", lambda: cpus)
    made = ShardWorker(changed(config, workers=workers), CPU, identity(config))
    made._device, made._batch = torch.device(device), 2
    made._split = made._split.model_copy(update={"exif_orientation": turned})
    shards = [
        Shard(0, ((1, asked(1)), (2, asked(2, 2)), (3, asked(3)))),
        Shard(1, ((5, asked(5)),)),
        Shard(2, ((2, asked(2)), (1, asked(1, 1)))),
    ]
    found = [[one.indices for one in batches] for batches in made._decoded(shards)]
    assert found == [[[1, 0], [2]], [[0]], [[1, 0]]]
    ((paths, image, places, count, exif, where),) = calls
    names = [f"p{image_id}.png" for image_id in (1, 2, 3, 5, 2, 1)]
    assert paths == [config.root / "images" / "deep" / name for name in names]
    assert places == [[1, 0], [2], [3], [5, 4]]
    assert (image, count, exif) == (made._image, expected, turned)
    assert where == (torch.device("cuda") if device == "cuda" else None)


def test_a_batch_moved_to_its_shard_keeps_what_failed() -> None:
    decoded = Decoded([4, 6], torch.ones(2), ["a", "b"], {5: "reason"})
    moved = module._moved(decoded, -4)
    assert (moved.indices, moved.digests, moved.failures) == ([0, 2], ["a", "b"], {1: "reason"})
    assert moved.inputs is decoded.inputs


# A worker of its run and config


@pytest.mark.parametrize(
    ("explain", "expected"),
    [
        ({}, (True, torch.float32, False, False)),
        ({"gradient": False}, (False, torch.float32, False, False)),
        ({"precision": "bfloat16"}, (True, torch.bfloat16, False, False)),
        ({"compile": True}, (True, torch.float32, True, False)),
        ({"product": "free"}, (True, torch.float32, False, True)),
    ],
)
def test_the_explainer_is_made_as_the_config_says(
    config: Config, monkeypatch: pytest.MonkeyPatch, explain: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(source, "Explainer", lambda model, *more: calls.append(more))
    ShardWorker(changed(config, **explain), CPU, identity(config))
    assert calls == [expected]


def test_a_worker_of_another_version_or_checkpoint_is_refused(config: Config, tmp_path: Path) -> None:
    own = identity(config)
    other = replace(own, versions=own.versions | {"torch": "1.0"})
    with pytest.raises(HvxError, match=r"a worker has torch .*, the run 1\.0; install the same version"):
        ShardWorker(config, CPU, other)
    other = replace(own, values={"checkpoint_sha256": "0" * 64})
    with pytest.raises(HvxError, match=r"m\.safetensors: replaced since this run began"):
        ShardWorker(config, CPU, other)
    model = config.model.model_copy(update={"joint": 6})
    with pytest.raises(HvxError, match=r"model\.joint"):
        ShardWorker(config.model_copy(update={"model": model}), CPU, own)


# What fails


class Made:
    """Stands for an explainer: each question is explained by its own words, some not at all."""

    def __init__(self, infinite: tuple[str, ...] = (), most: int = 100) -> None:
        self.infinite, self.most, self.calls = infinite, most, []

    def explain(self, inputs: torch.Tensor, images: list[int], questions: list[str]) -> Explanations:
        self.calls.append((inputs.tolist(), images, questions))
        if len(inputs) > self.most:
            raise OutOfMemory("cpu: not enough memory")
        made = explanations(len(questions), 5, (1,) * len(questions), optional=False)
        zeros = torch.zeros(len(questions), dtype=torch.bool)
        made = dataclasses.replace(made, zero_image_gradient=zeros, zero_word_gradient=zeros)
        for row, question in enumerate(questions):
            made.answers[row][0] = f"to {question}"
            made.heatmap[row] = torch.nan if question in self.infinite else inputs[images[row]].mean()
        return made


def small_shard() -> Shard:
    """Three images: of two questions, one, and one."""
    asked = {1: (10, 11), 2: (20,), 5: (50,)}
    return Shard(
        4,
        tuple((i, tuple(Question(q, i, f"deep/p{i}.png", f"q{q}") for q in own)) for i, own in asked.items()),
    )


def worker_of(config: Config, explainer: Made, **explain: Any) -> ShardWorker:
    made = ShardWorker(changed(config, **explain), CPU, identity(config))
    made._explainer = explainer  # type: ignore[assignment]
    return made


def decoded(*batches: tuple[list[int], dict[int, str]]) -> Any:
    """Batches whose inputs and digests tell the place of their image."""
    for places, failures in batches:
        inputs = torch.tensor([10.0 + place for place in places])
        yield Decoded(places, inputs, [f"digest {place}" for place in places], failures)


def test_failures_name_question_image_and_reason_and_cost_no_other_question(config: Config) -> None:
    made = worker_of(config, Made(infinite=("q11",)))
    found = made._explained(small_shard(), decoded(([2, 0], {}), ([], {1: "p2.png: not an image"})))
    assert found.shard.number == 4
    assert found.failures == [
        {"question_id": 20, "image_id": 2, "image_path": "deep/p2.png", "reason": "p2.png: not an image"},
        {
            "question_id": 11,
            "image_id": 1,
            "image_path": "deep/p1.png",
            "reason": f"{PARTS['heatmap']} is not finite (NaN or infinite): the network's numbers overflow "
            "on this question",
        },
    ]
    items = found.items
    assert items["question_id"].tolist() == [10, 50]
    assert items["image_id"].tolist() == [1, 5]
    assert items["answer"].tolist() == ["to q10", "to q50"]
    assert items["image_path"].tolist() == ["deep/p1.png", "deep/p5.png"]
    assert items["image_digest"].tolist() == ["digest 0", "digest 2"]
    assert items["heatmap"][:, 0, 0].tolist() == [10, 12]


def test_every_question_of_an_image_that_cannot_be_read_fails(config: Config) -> None:
    explainer = Made()
    found = worker_of(config, explainer)._explained(small_shard(), decoded(([], {0: "a", 1: "b", 2: "c"})))
    assert [(one["question_id"], one["reason"]) for one in found.failures] == [
        (10, "a"), (11, "a"), (20, "b"), (50, "c"),
    ]  # fmt: skip
    assert explainer.calls == []
    assert found.items["question_id"].tolist() == []


def test_on_error_stop_ends_the_run_at_the_first_failure(config: Config) -> None:
    made = worker_of(config, Made(infinite=("q11",)), on_error="stop")
    with pytest.raises(BadImage) as bad:
        made._explained(small_shard(), decoded(([0], {1: "p2.png: not an image"})))
    assert str(bad.value) == "p2.png: not an image (--on-error skip lists its questions and continues)"
    with pytest.raises(HvxError, match=r"^question_id 11: the heat map \(Eqs 2, 9\) is not finite") as odd:
        made._explained(small_shard(), decoded(([0, 1, 2], {})))
    assert not isinstance(odd.value, BadImage)
    whole = worker_of(config, Made(), on_error="stop")._explained(small_shard(), decoded(([0, 1, 2], {})))
    assert whole.items["question_id"].tolist() == [10, 11, 20, 50]


def test_where_memory_lacks_a_batch_is_halved_and_so_are_later_ones(config: Config) -> None:
    explainer = Made(most=2)
    made = worker_of(config, explainer, batch_images=5)
    questions = [Question(n, n, f"deep/p{n}.png", f"q{n}") for n in range(5)]
    columns = ShardColumns(questions, HeatmapConfig())
    asked = [range(n, n + 1) for n in range(5)]
    made._add(columns, questions, asked, torch.arange(5.0))
    assert [inputs for inputs, _, _ in explainer.calls] == [
        [0, 1, 2, 3, 4], [0, 1, 2], [0, 1], [2], [3, 4],
    ]  # fmt: skip
    found = columns.done(["d"] * 5)
    assert found["question_id"].tolist() == [0, 1, 2, 3, 4]
    assert found["answer"].tolist() == [f"to q{n}" for n in range(5)]
    assert found["heatmap"][:, 0, 0].tolist() == [0, 1, 2, 3, 4]
    explainer.calls.clear()
    made._add(ShardColumns(questions, HeatmapConfig()), questions, asked[:4], torch.arange(4.0))
    assert [inputs for inputs, _, _ in explainer.calls] == [[0, 1], [2, 3]]


def test_memory_that_lacks_for_one_image_is_an_error(config: Config) -> None:
    explainer = Made(most=0)
    columns = ShardColumns([ASKED, ASKED], HeatmapConfig())
    with pytest.raises(OutOfMemory, match="not enough memory"):
        worker_of(config, explainer)._add(columns, [ASKED, ASKED], [range(1), range(1, 2)], torch.arange(2.0))
    assert [inputs for inputs, _, _ in explainer.calls] == [[0, 1], [0]]


def test_questions_are_given_with_the_place_of_their_image(config: Config) -> None:
    explainer = Made()
    worker_of(config, explainer)._explained(small_shard(), decoded(([1, 0], {}), ([2], {})))
    assert explainer.calls == [([11, 10], [0, 1, 1], ["q20", "q10", "q11"]), ([12], [0], ["q50"])]


# One after the other


def test_shards_are_written_in_order_each_while_the_next_is_explained(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, said = worker_of(config, Made()), []
    explained, write = made._explained, made._write
    monkeypatch.setattr(
        made, "_explained", lambda s, b: said.append(f"explain {s.number}") or explained(s, b)
    )
    monkeypatch.setattr(made, "_write", lambda e, p: write(e, p))
    parts = plan_shards([question for _, own in shard_of(config).images for question in own], 1)
    assert len(parts) == 4
    for shard in made.explain_all(parts, tmp_path):
        assert (tmp_path / shard.name).is_file()
        said.append(f"done {shard.number}")
    assert said == [
        "explain 0", "explain 1", "done 0", "explain 2", "done 1", "explain 3", "done 2", "done 3",
    ]  # fmt: skip
    for shard in parts:
        with h5py.File(tmp_path / shard.name) as file:
            assert file.attrs["shard"] == shard.number
            ids = [question.question_id for _, own in shard.images for question in own]
            assert file["question_id"].asstr()[:].tolist() == list(map(str, ids))
    assert list(made.explain_all([], tmp_path)) == []


def test_what_was_explained_before_an_error_is_written(config: Config, tmp_path: Path) -> None:
    made = worker_of(config, Made(infinite=("red?",)), on_error="stop")
    shards = [
        Shard(number, ((image_id, (Question(number, image_id, f"deep/p{image_id}.png", text),)),))
        for number, (image_id, text) in enumerate([(1, "dog?"), (2, "red?"), (3, "dog?")])
    ]
    with pytest.raises(HvxError, match="question_id 1: "):
        list(made.explain_all(shards, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["00000.h5"]


def test_a_shard_that_cannot_be_written_is_an_error(config: Config, tmp_path: Path) -> None:
    (tmp_path / "shards").write_text("a file")
    with pytest.raises(
        HvxError, match="shards: the folder is gone; it was renamed or deleted during the run"
    ):
        list(worker_of(config, Made()).explain_all([shard_of(config)], tmp_path / "shards"))
