"""Training: cached features, labels of cells, targets, and what a trained model leaves behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Tiny
from PIL import Image

from hvx.config import BackboneConfig, EncoderConfig, ImageConfig, ModelConfig, SplitConfig, TrainConfig
from hvx.data.image_files import image_path
from hvx.data.images import load_input
from hvx.data.questions import Question, read_questions
from hvx.data.scene_drawing import COLORS, SHAPES
from hvx.errors import BadImage, HvxError
from hvx.importers.skipthoughts import PretrainedEncoder, save_pretrained
from hvx.models.backbone import Backbone, build_backbone
from hvx.models.checkpoint import load_checkpoint
from hvx.models.mlb import MLB
from hvx.train import evaluate, features
from hvx.train.backbone_pretraining import cell_shares
from hvx.train.dataset import Examples, Targets, frequent_answers
from hvx.train.evaluate import Evaluator, accuracy
from hvx.train.features import CacheJob, FeatureCache, cached_features
from hvx.train.head_trainer import HeadTrainer
from hvx.train.loop import best_of
from hvx.train.plot import write_plot
from hvx.train.resume_state import Progress
from hvx.train.schedule import warm_cosine
from hvx.train.trainer import train_model

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


def photo(image_id: int) -> str:
    return f"SCENES_val_{image_id:012d}.png"


def _cache(
    backbone: Backbone, image: ImageConfig, split: SplitConfig, ids: list[str], path: Path
) -> FeatureCache:
    job = CacheJob(split, ids, path)
    return cached_features(backbone, image, [job], lambda line: None, workers=0)[0]


def test_cached_features_are_the_backbones_in_half_precision(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.load(tmp_path)
    model, split = load_checkpoint(config.path(config.checkpoint)), config.split("val")
    ids = list(map(photo, [1_000_004, 1_000_001, 1_000_006]))
    for in_memory in (features._IN_MEMORY, 0):  # 0: read row by row
        monkeypatch.setattr(features, "_IN_MEMORY", in_memory)
        cache = _cache(model.backbone, model.config.image, split, ids, tmp_path / "f.h5")
        found = cache[[cache.rows[photo(1_000_006)], cache.rows[photo(1_000_004)]]]
        assert found.dtype == torch.float16
        for own, image_id in zip(found, (1_000_006, 1_000_004), strict=True):
            expected = model.backbone(
                load_input(image_path(split, photo(image_id)), model.config.image)[None]
            )[0]
            torch.testing.assert_close(own.float(), expected, rtol=2e-3, atol=2e-3)


def test_features_are_computed_once_and_again_only_for_what_changes_them(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.load(tmp_path)
    model, split = load_checkpoint(config.path(config.checkpoint)), config.split("val")
    path = tmp_path / "f.h5"
    image, backbone, ids = model.config.image, model.backbone, [photo(1_000_001), photo(1_000_002)]

    def computed(
        backbone: Backbone = backbone,
        image: ImageConfig = image,
        split: SplitConfig = split,
        ids: list[str] = ids,
    ) -> bool:
        before = path.stat().st_mtime_ns if path.exists() else 0
        _cache(backbone, image, split, ids, path)
        return path.stat().st_mtime_ns != before

    assert computed(ids=[photo(1_000_001)])
    assert not computed(ids=[photo(1_000_001)])
    assert computed()
    assert computed(image=image.model_copy(update={"interpolation": "bilinear"}))
    assert computed(split=split.model_copy(update={"exif_orientation": True}))
    assert computed()
    # The same weights, cut before the last ReLU.
    config_before = model.config.backbone.model_copy(update={"node": "layer2.0.add"})
    before_relu = build_backbone(config_before)
    before_relu.load_state_dict(backbone.state_dict())
    assert computed(backbone=before_relu)
    with torch.no_grad():
        next(backbone.parameters()).add_(0.5)
    assert computed()
    path.write_bytes(b"torn")
    assert computed()
    assert not computed()


def test_features_without_a_lattice_are_refused_by_the_nodes_key(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.load(tmp_path)
    flat = build_backbone(BackboneConfig(architecture="resnet10", node="flatten"))
    with pytest.raises(HvxError, match=r"model\.backbone\.node: .*\(512,\)"):
        _cache(flat, config.model.image, config.split("val"), [photo(1_000_001)], tmp_path / "f.h5")
    assert not list(tmp_path.iterdir())


def test_features_too_large_for_float16_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.load(tmp_path)
    model, split = load_checkpoint(config.path(config.checkpoint)), config.split("val")
    for module in model.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.mul_(1e5)
    with pytest.raises(HvxError, match="float16"):
        _cache(model.backbone, model.config.image, split, [photo(1_000_001)], tmp_path / "f.h5")


def test_an_image_that_turns_out_bad_is_named_and_what_was_computed_before_it_is_kept(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "_BATCH", 2)
    config = tiny.load(tmp_path)
    model, split = load_checkpoint(config.path(config.checkpoint)), config.split("val")
    images = tmp_path / "images"
    shutil.copytree(split.images, images)
    split = split.model_copy(update={"images": images})
    ids = [photo(1_000_000 + n) for n in range(6)]
    bad = image_path(split, ids[4])
    good = bad.read_bytes()
    bad.write_bytes(good[:200])
    with pytest.raises(BadImage, match=bad.name):
        _cache(model.backbone, model.config.image, split, ids, tmp_path / "f.h5")
    assert not (tmp_path / "f.h5").exists()
    bad.write_bytes(good)
    for name in ids[:4]:
        image_path(split, name).unlink()  # they are not needed again
    cache = _cache(model.backbone, model.config.image, split, ids, tmp_path / "f.h5")
    whole = _cache(model.backbone, model.config.image, config.split("val"), ids, tmp_path / "whole.h5")
    assert torch.equal(cache[list(range(6))], whole[list(range(6))])
    assert cache.root_mean_square == whole.root_mean_square


def test_the_size_of_features_is_said_before_it_is_spent_and_refused_where_it_does_not_fit(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.load(tmp_path)
    model = load_checkpoint(config.path(config.checkpoint))
    jobs = [
        CacheJob(
            config.split("val"), [photo(1_000_000 + n) for n in range(8)], tmp_path / "caches" / f"{name}.h5"
        )
        for name in ("a", "b")
    ]
    each = 8 * 128 * 8 * 8 * 2
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=2 * each - 1))
    said: list[str] = []
    with pytest.raises(HvxError, match=r"caches: 0\.3 MB of features do not fit, .*train\.feature_cache"):
        cached_features(model.backbone, model.config.image, jobs, said.append, workers=0)
    assert "8 images × 128×8×8 × 2 bytes = 0.1 MB" in said[0]
    assert not list((tmp_path / "caches").iterdir())
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=2 * each))
    assert len(cached_features(model.backbone, model.config.image, jobs, said.append, workers=0)) == 2
    assert abs(jobs[0].path.stat().st_size - each) < 20_000


def test_a_scale_on_the_features_folds_into_the_weights() -> None:
    for form in ("paper", "torch7"):
        torch.manual_seed(0)
        config = ModelConfig(form=form, encoder=EncoderConfig(embedding=3, hidden=4), joint=5)
        head = MLB(config, 6, 7, 8).double().eval()
        features = torch.randn(2, 6, 3, 3, dtype=torch.float64)
        rows, lengths, images = torch.tensor([[1, 2], [3, 4]]), torch.tensor([2, 2]), torch.tensor([1, 0])

        def logits(x: torch.Tensor, head: MLB = head) -> torch.Tensor:
            return head(x, head.image_terms(x), images, head.encoder.embed(rows), lengths).logits  # noqa: B023

        before = logits(features * 0.03)
        head.fold_feature_scale(0.03)
        torch.testing.assert_close(logits(features), before, rtol=0, atol=1e-12)
        assert (logits(features * 2) - before).abs().max() > 1e-6


def test_a_cache_knows_how_large_its_features_are(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.load(tmp_path)
    model, split = load_checkpoint(config.path(config.checkpoint)), config.split("val")
    ids = [photo(1_000_000 + n) for n in range(8)]
    cache = _cache(model.backbone, model.config.image, split, ids, tmp_path / "f.h5")
    found = cache[list(range(8))].double().square().mean().sqrt().item()
    assert cache.root_mean_square == pytest.approx(found, rel=1e-3)


class _Features:
    """Stands in for a cache: image id i has features full of i."""

    def __init__(self, ids: list[str]) -> None:
        self.rows = {image_id: row for row, image_id in enumerate(ids)}
        self.ids = ids

    def __getitem__(self, rows: list[int]) -> torch.Tensor:
        return torch.tensor([float(self.ids[row]) for row in rows]).view(-1, 1, 1, 1)


def _examples(people: dict[int, tuple[str, ...]] | None = None) -> Examples:
    """Eight questions on four images; ``people`` says what was answered to some."""
    questions = [
        Question(n, image_id, f"{image_id}", "is it?", "yes", (people or {}).get(n, ("yes",)))
        for n, image_id in enumerate([7, 8, 7, 9, 9, 9, 5, 8])
    ]
    return Examples(questions, _Features(["5", "7", "8", "9"]), {"is it?": [2, 3, 1]}, CPU)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 3, 100])
def test_batches_hold_each_question_once_beside_its_own_image(size: int) -> None:
    examples = _examples()
    seen: list[int] = []
    for batch in map(examples.batch, examples.groups(size, np.random.default_rng(0))):
        seen += batch.indices
        for place, image in zip(batch.indices, batch.images.tolist(), strict=True):
            assert batch.features[image].item() == examples.questions[place].image_id
    assert sorted(seen) == list(range(8))


def test_swapped_images_are_never_a_questions_own() -> None:
    examples = _examples()
    for group in examples.groups(3):
        batch = examples.batch(group, examples.swapped())
        for place, image in zip(batch.indices, batch.images.tolist(), strict=True):
            assert batch.features[image].item() != examples.questions[place].image_id


def test_a_target_is_drawn_as_often_as_people_gave_the_answer() -> None:
    people = {0: ("two", "two", "two", "three", "seldom"), 3: ("seldom", "three")}
    targets = Targets(_examples(people).questions, ["yes", "two", "three"])
    assert targets.counts.tolist() == [4, 1, 1, 1, 1, 1, 1, 1]
    rng = np.random.default_rng(0)
    drawn = np.array([targets.draw(np.array([3, 0, 7]), rng) for _ in range(4000)])
    assert set(drawn[:, 0]) == {2}
    assert set(drawn[:, 2]) == {0}
    share = (drawn[:, 1] == 1).mean()
    assert set(drawn[:, 1]) == {1, 2}
    assert abs(share - 0.75) < 4 * (0.75 * 0.25 / 4000) ** 0.5


def test_the_expected_loss_is_the_mean_over_the_people() -> None:
    people = {0: ("two", "two", "two", "three", "seldom"), 1: ("seldom",), 3: ("three", "yes")}
    answers = ["yes", "two", "three"]
    examples = _examples(people)
    places = [3, 1, 0, 2]
    logits = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = 0.0
    for row, place in zip(logits, places, strict=True):
        said = [answers.index(answer) for answer in examples.questions[place].answers if answer in answers]
        losses = [float(row.exp().sum().log() - row[answer]) for answer in said]
        expected += sum(losses) / len(losses) if losses else 0.0
    found = Targets(examples.questions, answers).expected_loss(logits, places)
    assert found == pytest.approx(expected, abs=1e-9)


def _trainer(seed: int, progress: Progress) -> HeadTrainer:
    torch.manual_seed(0)
    config = ModelConfig(encoder=EncoderConfig(embedding=3, hidden=4), joint=5)
    model = MLB(config, 1, 3, 3, dropout=0.5)
    people = dict.fromkeys(range(8), ("yes", "two", "three"))
    train = TrainConfig(epochs=3, batch=3)
    return HeadTrainer(model, _examples(people), ["yes", "two", "three"], train, seed, progress)


def test_each_epoch_has_an_order_and_targets_of_its_own_and_the_seeds() -> None:
    def plan(seed: int, epoch: int) -> tuple[list[list[int]], list[int]]:
        trainer = _trainer(seed, Progress(rows=[{"epoch": n} for n in range(1, epoch)]))
        return trainer.begin(), trainer._drawn.tolist()

    assert plan(0, 1) == plan(0, 1)
    plans = [plan(seed, epoch) for seed in (0, 1, 2) for epoch in (1, 2, 3)]
    assert len({str(targets) for _, targets in plans}) == len(plans)
    assert len({str(groups) for groups, _ in plans}) > 3


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    trainer = _trainer(0, Progress())
    with torch.no_grad():
        trainer.model.classifier.bias[0] = float("nan")
    with pytest.raises(HvxError, match=r"epoch 1, step 1 is nan.*train\.rate"):
        trainer.step(trainer.begin()[0])


def test_the_rate_rises_over_a_tenth_of_the_steps_and_falls_to_nothing() -> None:
    rates = [warm_cosine(step, 100) for step in range(120)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.5)
    assert rates[100:] == [0.0] * 20


def test_the_most_frequent_answers_are_kept_ties_in_alphabetical_order() -> None:
    truths = ["b", "a", "c", "c", "d"]
    questions = [Question(n, n, "n", "?", truth, (truth,)) for n, truth in enumerate(truths)]
    assert frequent_answers(questions, 3) == ["c", "a", "b"]


def test_accuracy_counts_answers_right_to_the_letter() -> None:
    questions = [Question(n, n, "n", "?", truth) for n, truth in enumerate("abcd")]
    assert accuracy(["a", "b", "x", "D"], questions) == 0.5


class _Answering(torch.nn.Module):
    """Stands in for a head: whatever is asked, the same logits."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)


def test_validation_tells_exact_match_official_accuracy_and_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    people = {0: ("yes", *["no"] * 9), 1: ("a yes.", *["yes"] * 3, *["no"] * 6), 2: ("no",) * 10}
    examples = _examples(people)
    monkeypatch.setattr(
        evaluate, "answer_logits", lambda model, batch: model.logits.repeat(len(batch.indices), 1)
    )
    metrics = Evaluator(_Answering([1.0, 0.0]), examples, ["yes", "two"]).metrics()  # type: ignore[arg-type]
    assert metrics["val_accuracy"] == 1.0
    # By hand: one of ten said "yes", (1 · 0 + 9 · 1/3) / 10; four did; none; five questions with one answer.
    assert metrics["val_vqa_accuracy"] == pytest.approx((0.3 + 1 + 0 + 5) / 8, abs=5e-5)
    assert metrics["val_loss"] == pytest.approx(np.log(1 + np.exp(-1)), abs=5e-5)
    named = Evaluator(_Answering([1.0, 0.0]), examples, ["yes", "two"], "evalai").metrics()  # type: ignore[arg-type]
    assert set(named) == {"val_accuracy", "val_evalai_accuracy", "val_loss"}


def test_the_best_epoch_has_the_highest_official_accuracy_the_latest_of_equals() -> None:
    rows = [
        {"epoch": n, "val_accuracy": n / 9, "val_vqa_accuracy": a}
        for n, a in enumerate((0.2, 0.5, 0.5, 0.4), 1)
    ]
    assert best_of(rows) == {"best_epoch": 3, "best_val_vqa_accuracy": 0.5}
    assert best_of([{"epoch": 1}, {"epoch": 2}]) == {"best_epoch": 2}
    textvqa = [{"epoch": n, "val_evalai_accuracy": a} for n, a in enumerate((0.2, 0.6, 0.1), 1)]
    assert best_of(textvqa) == {"best_epoch": 2, "best_val_evalai_accuracy": 0.6}


def test_the_best_and_the_last_epoch_each_have_a_checkpoint(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    official = iter([0.25, 0.75, 0.5])
    monkeypatch.setattr(evaluate, "mean_accuracy", lambda predicted, questions, metric: next(official))
    config = tiny.load(
        tmp_path, train__epochs=3, train__backbone_epochs=0, checkpoint=tmp_path / "m.safetensors"
    )
    said: list[str] = []
    metrics = train_model(config, CPU, said.append)
    assert metrics["epoch"] == 3
    assert (metrics["best_epoch"], metrics["best_val_vqa_accuracy"]) == (2, 0.75)
    best, last = (load_checkpoint(tmp_path / f"m{name}.safetensors") for name in ("", ".last"))
    assert (best.training["epoch"], last.training["epoch"]) == (2, 3)
    assert not torch.equal(best.head.classifier.weight, last.head.classifier.weight)
    rows = [json.loads(line) for line in (tmp_path / "m.metrics.jsonl").read_text().splitlines()]
    assert [row["val_vqa_accuracy"] for row in rows] == [0.25, 0.75, 0.5]
    for row in rows:
        assert {"epoch", "loss", "rate", "seconds", "val_loss", "val_accuracy"} <= set(row)
    for name in ("shuffled_images", "mean_features", "most_frequent_answer"):
        assert [f"val_accuracy_{name}" in row for row in rows] == [False, False, True]
    assert [line for line in said if line.startswith("epoch 2, ")]
    with Image.open(tmp_path / "m.plot.png") as plot:
        assert plot.width > 800


def test_without_validation_the_last_epoch_is_the_best(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.load(
        tmp_path, train__validation="null", train__backbone_epochs=0, checkpoint=tmp_path / "m.safetensors"
    )
    metrics = train_model(config, CPU)
    assert "val_accuracy" not in metrics
    assert metrics["best_epoch"] == 1
    assert (tmp_path / "m.safetensors").read_bytes() == (tmp_path / "m.last.safetensors").read_bytes()


def test_a_plot_shows_as_many_panels_as_there_is_to_show(tmp_path: Path) -> None:
    rows = [
        {"epoch": n, "loss": 2 / n, "val_loss": 3 / n, "val_accuracy": 0.1 * n, "val_vqa_accuracy": 0.2}
        for n in (1, 2)
    ]
    write_plot(tmp_path / "two.png", rows, 2)
    write_plot(tmp_path / "one.png", [{"epoch": 1, "loss": 0.0}], None)
    with Image.open(tmp_path / "two.png") as two, Image.open(tmp_path / "one.png") as one:
        assert two.width > 1.5 * one.width
        for picture in (one, two):
            assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 20


def test_training_leaves_a_checkpoint_and_a_line_of_metrics_for_each_epoch(tiny: Tiny) -> None:
    rows = [json.loads(line) for line in (tiny.root / "model.metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1]
    assert {"loss", "val_accuracy", "val_vqa_accuracy", "val_accuracy_shuffled_images"} <= set(rows[-1])
    model = load_checkpoint(tiny.root / "model.safetensors")
    assert set(model.answers) <= {*COLORS, *SHAPES, "yes", "no", *map(str, range(10))}
    assert model.training["val_accuracy"] == rows[-1]["val_accuracy"]


def test_questions_without_an_answer_that_is_kept_are_left_out_and_counted(
    tiny: Tiny, tmp_path: Path
) -> None:
    config = tiny.load(
        tmp_path, train__answers=2, train__backbone_epochs=0, checkpoint=tmp_path / "m.safetensors"
    )
    metrics = train_model(config, CPU)
    model = load_checkpoint(tmp_path / "m.safetensors")
    questions = read_questions(config.split("train"))
    assert metrics["questions"] == len(questions)
    assert metrics["questions_left_out"] == sum(q.ground_truth not in model.answers for q in questions) > 0


def test_answers_that_have_nothing_to_do_with_the_ground_truths_are_refused(
    tiny: Tiny, tmp_path: Path
) -> None:
    tree = json.loads((tiny.root / "scenes" / "scenes_train_annotations.json").read_text())
    for row in tree["annotations"]:
        row["answers"] = [{"answer": "something else"}]
    (tmp_path / "a.json").write_text(json.dumps(tree))
    config = tiny.load(
        tmp_path, splits__train__annotations=tmp_path / "a.json", checkpoint=tmp_path / "m.safetensors"
    )
    with pytest.raises(HvxError, match=r"a\.json: none of the 'answers'"):
        train_model(config, CPU)


def test_a_start_file_fills_the_encoder_and_the_words_found_are_noted(tiny: Tiny, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    words, sizes = (
        ("UNK", "red", "is", "nowhere"),
        {"input.weight": (36, 8), "input.bias": (36,), "gates.weight": (24, 12), "state.weight": (12, 12)},
    )
    gru = {name: torch.randn(*shape, generator=generator) for name, shape in sizes.items()}
    start = PretrainedEncoder("made here", words, torch.randn(4, 8, generator=generator), gru)
    save_pretrained(tmp_path / "start.safetensors", start)
    config = tiny.load(
        tmp_path, train__start=tmp_path / "start.safetensors", train__rate=1e-12, train__weight_decay=0,
        train__backbone_epochs=0, checkpoint=tmp_path / "m.safetensors",
        model__encoder__candidate="reset_after",
    )  # fmt: skip
    said: list[str] = []
    train_model(config, CPU, said.append)
    model = load_checkpoint(tmp_path / "m.safetensors")
    assert model.training["start_words"] == 3
    assert model.training["words"] == len(model.vocabulary)
    assert any(f"3 of the vocabulary's {len(model.vocabulary)} words" in line for line in said)
    for name, tensor in gru.items():
        torch.testing.assert_close(model.head.encoder.gru.state_dict()[name], tensor)
    row = model.vocabulary.rows(["red"])[0]
    torch.testing.assert_close(model.head.encoder.table.weight[row], start.table[1])


def test_the_same_seed_trains_the_same_model(tiny: Tiny, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train_model(tiny.load(tmp_path, checkpoint=tmp_path / f"{name}.safetensors"), CPU)
    one, two = (load_checkpoint(tmp_path / f"{name}.safetensors").head.state_dict() for name in ("a", "b"))
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, rtol=1e-4, atol=1e-5)


def test_training_without_annotations_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(HvxError, match="training needs annotations"):
        train_model(
            tiny.load(tmp_path, splits__train__annotations="null", checkpoint=tmp_path / "m.safetensors"),
            CPU,
        )


def test_only_a_split_with_objects_trains_a_backbone(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.load(tmp_path, splits__train__objects="null", checkpoint=tmp_path / "m.safetensors")
    with pytest.raises(HvxError, match="table of objects"):
        train_model(config, CPU)


def test_missing_images_are_counted_and_named_before_any_work(tiny: Tiny, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(tiny.root / "scenes" / "images", images)
    for number in (2, 3, 4, 5, 6, 7):
        (images / f"SCENES_val_00000100000{number}.png").unlink()
    config = tiny.load(tmp_path, splits__val__images=images, checkpoint=tmp_path / "m.safetensors")
    with pytest.raises(
        HvxError, match=r"images: 6 of the split's 8 images are missing: SCENES_val_000001000002.*06\.png, …"
    ):
        train_model(config, CPU)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_a_missing_folder_of_images_is_named(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.load(tmp_path, splits__val__images=tmp_path / "none", checkpoint=tmp_path / "m.safetensors")
    with pytest.raises(HvxError, match="none: no such folder of images"):
        train_model(config, CPU)
