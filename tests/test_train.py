"""Training: cached features, labels of cells, targets, and what a trained model leaves behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Tiny

from hvx.config import TrainConfig
from hvx.data.questions import Question
from hvx.data.scene_drawing import COLORS, SHAPES
from hvx.data.words import Vocabulary
from hvx.errors import BadImage, HvxError
from hvx.models.checkpoint import load_checkpoint
from hvx.train.cells import cell_shares
from hvx.train.features import cached_features
from hvx.train.head import Examples, HeadTrainer, accuracy, frequent_answers
from hvx.train.model import train_model

CPU = torch.device("cpu")


def test_cells_are_told_what_share_of_their_window_each_object_covers() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[:4, :4] = 2  # a whole cell
    mask[:2, 4:7] = 1
    red = {"label": 1, "color": "red", "shape": "star"}
    objects = [red, {"label": 2, "color": "blue", "shape": "circle"}]
    colors, shapes = cell_shares(mask, objects, 2).split((1 + len(COLORS), 1 + len(SHAPES)))
    for row, column in np.ndindex(2, 2):
        # The window reaches half a cell, two pixels, beyond the cell on each side, within the image.
        window = mask[max(0, 4 * row - 2) : 4 * row + 6, max(0, 4 * column - 2) : 4 * column + 6]
        share = [float((window == label).mean()) for label in (0, 1, 2)]
        for found, names, one, two in (
            (colors, list(COLORS), "red", "blue"),
            (shapes, SHAPES, "star", "circle"),
        ):
            expected = np.zeros(1 + len(names))
            expected[[0, 1 + names.index(one), 1 + names.index(two)]] = share
            np.testing.assert_allclose(found[:, row, column].numpy(), expected, atol=1e-6)


def test_cached_features_are_the_backbones_in_half_precision(tiny: Tiny, tmp_path: Path) -> None:
    from hvx.data.images import image_path, load_input

    config = tiny.load(tmp_path)
    model, split = load_checkpoint(config.path(config.checkpoint)), config.split("val")
    ids = [1_000_004, 1_000_001, 1_000_006]
    cache = cached_features(model.backbone, model.config.image, split, ids, tmp_path / "f.h5", workers=0)
    found = cache[[cache.rows[1_000_006], cache.rows[1_000_004]]]
    for features, image_id in zip(found, (1_000_006, 1_000_004), strict=True):
        expected = model.backbone(load_input(image_path(split, image_id), model.config.image)[None])[0]
        torch.testing.assert_close(features, expected, rtol=2e-3, atol=2e-3)


def test_features_are_computed_once_and_again_only_for_another_backbone_or_image_list(
    tiny: Tiny, tmp_path: Path
) -> None:
    config = tiny.load(tmp_path)
    model, split = load_checkpoint(config.path(config.checkpoint)), config.split("val")
    path = tmp_path / "f.h5"

    def computed(ids: list[int]) -> bool:
        before = path.stat().st_mtime_ns if path.exists() else 0
        cached_features(model.backbone, model.config.image, split, ids, path, workers=0)
        return path.stat().st_mtime_ns != before

    assert computed([1_000_001])
    assert not computed([1_000_001])
    assert computed([1_000_001, 1_000_002])
    with torch.no_grad():
        next(model.backbone.parameters()).add_(0.5)
    assert computed([1_000_001, 1_000_002])
    path.write_bytes(b"torn")
    assert computed([1_000_001, 1_000_002])


def test_features_without_a_lattice_are_refused_by_the_nodes_key(tiny: Tiny, tmp_path: Path) -> None:
    from hvx.config import BackboneConfig
    from hvx.models.backbone import build_backbone

    config = tiny.load(tmp_path)
    flat = build_backbone(BackboneConfig(architecture="resnet10", node="flatten"))
    with pytest.raises(HvxError, match=r"model\.backbone\.node: .*\(512,\)"):
        cached_features(flat, config.model.image, config.split("val"), [1_000_001], tmp_path / "f.h5", 0)
    assert not list(tmp_path.iterdir())


def test_a_bad_image_leaves_no_half_written_cache(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.load(tmp_path)
    model, split = load_checkpoint(config.path(config.checkpoint)), config.split("val")
    with pytest.raises(BadImage, match="SCENES_val_000000000005"):
        cached_features(model.backbone, model.config.image, split, [5], tmp_path / "f.h5", workers=0)
    assert not list(tmp_path.iterdir())


def test_a_scale_on_the_features_folds_into_the_weights() -> None:
    from hvx.config import EncoderConfig, ModelConfig
    from hvx.models.mlb import MLB

    for form in ("paper", "torch7"):
        torch.manual_seed(0)
        config = ModelConfig(form=form, encoder=EncoderConfig(embedding=3, hidden=4), joint=5)
        head = MLB(config, 6, 7, 8).double().eval()
        features = torch.randn(2, 6, 3, 3, dtype=torch.float64)
        rows, lengths, images = torch.tensor([[1, 2], [3, 4]]), torch.tensor([2, 2]), torch.tensor([1, 0])

        def logits(x: torch.Tensor, head: MLB = head) -> torch.Tensor:
            return head(x, head.image_terms(x), images, head.encoder.embed(rows), lengths).logits  # noqa: B023

        before = logits(features * 0.03)
        head.absorb_scale(0.03)
        torch.testing.assert_close(logits(features), before, rtol=0, atol=1e-12)
        assert (logits(features * 2) - before).abs().max() > 1e-6


def test_a_cache_knows_how_large_its_features_are(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.load(tmp_path)
    model, split = load_checkpoint(config.path(config.checkpoint)), config.split("val")
    ids = [1_000_000 + n for n in range(8)]
    cache = cached_features(model.backbone, model.config.image, split, ids, tmp_path / "f.h5", workers=0)
    found = cache[list(range(8))].double().square().mean().sqrt().item()
    assert cache.root_mean_square == pytest.approx(found, rel=1e-3)


class _Features:
    """Stands in for a cache: image id i has features full of i."""

    def __init__(self, ids: list[int]) -> None:
        self.rows = {image_id: row for row, image_id in enumerate(ids)}
        self.ids = ids

    def __getitem__(self, rows: list[int]) -> torch.Tensor:
        return torch.tensor([float(self.ids[row]) for row in rows]).view(-1, 1, 1, 1)


def _examples() -> Examples:
    questions = [
        Question(n, image_id, "is it?", "yes", ("yes",))
        for n, image_id in enumerate([7, 8, 7, 9, 9, 9, 5, 8])
    ]
    return Examples(questions, _Features([5, 7, 8, 9]), Vocabulary(("?", "is", "it")), "nltk", CPU)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 3, 100])
def test_batches_hold_each_question_once_beside_its_own_image(size: int) -> None:
    examples = _examples()
    seen: list[int] = []
    for batch in examples.batches(size, np.random.default_rng(0)):
        seen += batch.places
        for place, image in zip(batch.places, batch.images.tolist(), strict=True):
            assert batch.features[image].item() == examples.questions[place].image_id
    assert sorted(seen) == list(range(8))


def test_swapped_images_are_never_a_questions_own() -> None:
    examples = _examples()
    for batch in examples.batches(3, shown=examples.swapped()):
        for place, image in zip(batch.places, batch.images.tolist(), strict=True):
            assert batch.features[image].item() != examples.questions[place].image_id


def test_targets_are_drawn_from_what_the_people_said() -> None:
    examples = _examples()
    people = ("two", "two", "two", "three", "seldom")
    examples.questions[0] = Question(0, 7, "how many?", "two", people)
    train = TrainConfig(epochs=1)
    trainer = HeadTrainer(torch.nn.Linear(1, 1), examples, ["yes", "two", "three"], train, 0)  # type: ignore[arg-type]
    assert trainer.targets[0] == [1, 1, 1, 2]


def test_the_most_frequent_answers_are_kept_ties_in_alphabetical_order() -> None:
    truths = ["b", "a", "c", "c", "d"]
    questions = [Question(n, n, "?", truth, (truth,)) for n, truth in enumerate(truths)]
    assert frequent_answers(questions, 3) == ["c", "a", "b"]


def test_accuracy_counts_answers_right_to_the_letter() -> None:
    questions = [Question(n, n, "?", truth) for n, truth in enumerate("abcd")]
    assert accuracy(["a", "b", "x", "D"], questions) == 0.5


def test_training_leaves_a_checkpoint_and_a_line_of_metrics_for_each_epoch(tiny: Tiny) -> None:
    rows = [json.loads(line) for line in (tiny.root / "model.metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1]
    assert {"loss", "val_accuracy", "val_accuracy_shuffled_images"} <= set(rows[-1])
    model = load_checkpoint(tiny.root / "model.safetensors")
    assert set(model.answers) <= {*COLORS, *SHAPES, "yes", "no", *map(str, range(10))}
    assert model.training["val_accuracy"] == rows[-1]["val_accuracy"]


def test_the_same_seed_trains_the_same_model(tiny: Tiny, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train_model(tiny.load(tmp_path, checkpoint=tmp_path / f"{name}.safetensors"), CPU)
    one, two = (load_checkpoint(tmp_path / f"{name}.safetensors").head.state_dict() for name in ("a", "b"))
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, rtol=1e-4, atol=1e-5)


def test_training_without_annotations_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(HvxError, match="training needs annotations"):
        train_model(tiny.load(tmp_path, splits__train__annotations="null"), CPU)


def test_only_a_split_with_objects_trains_a_backbone(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.load(tmp_path, splits__train__objects="null", checkpoint=tmp_path / "m.safetensors")
    with pytest.raises(HvxError, match="table of objects"):
        train_model(config, CPU)


def test_a_missing_image_stops_training_by_name(tiny: Tiny, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(tiny.root / "scenes" / "images", images)
    (images / "SCENES_val_000001000002.png").unlink()
    config = tiny.load(tmp_path, splits__val__images=images, checkpoint=tmp_path / "m.safetensors")
    with pytest.raises(BadImage, match="SCENES_val_000001000002"):
        train_model(config, CPU)
    assert not (tmp_path / "m.safetensors").exists()
