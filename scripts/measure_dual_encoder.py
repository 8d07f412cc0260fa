"""Trains small dual encoders on the built-in split; prints where the heat maps of their captions point.

OMP_NUM_THREADS=1 python scripts/measure_dual_encoder.py runs/reproduce --seed 0 --seed 1

RUN is what `hvx reproduce` leaves: its scenes, and the backbone that it trained, frozen. A caption names an
object of a scene ("a picture of a red star"). The image tower is that backbone, a 1×1 convolution with ReLU
and the maximum over the grid; the text tower a GRU. Each caption is true of a scene or not: a logistic loss
over all pairs, as SigLIP's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hvx.adapters.dual.encoder import DualEncoder, image_branch
from hvx.adapters.dual.equations import Cotangent, explain_pairs
from hvx.adapters.dual.words import TextTokenizer
from hvx.config import Config, load
from hvx.data.images import load_input
from hvx.data.object_masks import ObjectTable
from hvx.data.scene_drawing import COLORS, SHAPES
from hvx.measure.metrics.bootstrap import Estimate, mean
from hvx.measure.metrics.localization import points_inside
from hvx.models.backbone import Backbone
from hvx.models.checkpoint import VQAModel, load_checkpoint
from hvx.train.features import FeatureCache

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "scenes.yaml"
NAMES = [f"{color} {shape}" for color in COLORS for shape in SHAPES]
CAPTIONS = [f"a picture of a {name}" for name in NAMES]
VOCABULARY = ["", *sorted({word for caption in CAPTIONS for word in caption.split()})]
END = 0
BATCH, WIDTH, CELLS = 64, 64, 128


class Towers(nn.Module):
    """Both towers over a frozen backbone."""

    def __init__(self, backbone: Backbone, channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.cell, self.to_visual = nn.Conv2d(channels, CELLS, 1), nn.Linear(CELLS, WIDTH)
        self.table = nn.Embedding(len(VOCABULARY), 32)
        self.gru, self.to_textual = nn.GRU(32, 64, batch_first=True), nn.Linear(64, WIDTH)
        self.scale, self.shift = nn.Parameter(torch.tensor(3.0)), nn.Parameter(torch.tensor(-5.0))

    def pooled(self, features: Tensor) -> Tensor:
        """v of features (B, M, S, S), before normalization."""
        return self.to_visual(functional.relu(self.cell(features)).amax((2, 3)))

    def image_tower(self, images: Tensor) -> Tensor:
        return self.pooled(self.backbone(images))

    def text_tower(self, ids: Tensor) -> Tensor:
        return self.to_textual(self.gru(self.table(ids))[1][0])


def encode(texts: list[str]) -> Tensor:
    """Ids of captions, which are all of one length."""
    return torch.tensor([[VOCABULARY.index(word) for word in text.split()] for text in texts])


def as_encoder(towers: Towers, model: VQAModel) -> DualEncoder:
    tokenizer = TextTokenizer(
        encode=encode,
        piece=lambda each: VOCABULARY[each] + "</w>",
        decode=lambda ids: " ".join(VOCABULARY[each] for each in ids),
        start=None,
        ends=frozenset({END}),
    )
    return DualEncoder(
        name="scenes", network=towers, image=model.config.image, image_tower=towers.image_tower,
        text_tower=towers.text_tower, tokenizer=tokenizer, embeddings=towers.table, patches=None,
        scale=float(towers.scale.exp()), bias=float(towers.shift), sigmoid=True,
    )  # fmt: skip


def train(towers: Towers, run: Path, config: Config, epochs: int) -> None:
    """Train all but the backbone, over the features that `hvx train` kept of the train split."""
    cache = FeatureCache(run / "model.features.train.h5")
    objects = ObjectTable(config.split("train")).objects
    own = {name: _names(objects[int(name.rpartition("_")[2].partition(".")[0])]) for name in cache.rows}
    holds = torch.tensor([[name in own[image] for name in NAMES] for image in cache.rows]).float()
    features = cache[list(cache.rows.values())]
    ids, size = encode(CAPTIONS), cache.root_mean_square
    trained = [value for name, value in towers.named_parameters() if not name.startswith("backbone.")]
    optimizer = torch.optim.AdamW(trained, 4e-3)
    steps = epochs * (len(features) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(features)).split(BATCH):
            if len(rows) < BATCH:
                continue
            v = functional.normalize(towers.pooled(features[rows].float() / size), dim=1)
            t = functional.normalize(towers.text_tower(ids), dim=1)
            logits = towers.scale.exp() * v @ t.t() + towers.shift
            loss = functional.binary_cross_entropy_with_logits(logits, holds[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        towers.cell.weight /= size
    towers.eval().requires_grad_(False)


def _names(objects: Sequence[dict[str, object]]) -> set[str]:
    return {f"{item['color']} {item['shape']}" for item in objects}


@dataclass
class Scenes:
    """Scenes of the val split with the captions of their objects; lists by scene."""

    images: list[Tensor]
    names: list[list[str]]
    masks: list[list[np.ndarray]]


def scenes(model: VQAModel, config: Config, count: int) -> Scenes:
    split, found = config.split("val"), Scenes([], [], [])
    table = ObjectTable(split)
    for image_id, objects in list(table.objects.items())[:count]:
        assert isinstance(image_id, int) and split.image_name is not None
        path = split.folders[0] / split.image_name.format(image_id=image_id)
        found.images.append(load_input(path, model.config.image))
        found.names.append([f"{item['color']} {item['shape']}" for item in objects])
        labels = table.mask(image_id)
        found.masks.append([labels == item["label"] for item in objects])
    return found


@dataclass
class Hits:
    """Whether a map's maximum lies in the object its caption names, in any, in that of another caption."""

    named: list[float]
    any: list[float]
    other: list[float]
    scene: list[int]


def measured(encoder: DualEncoder, val: Scenes, cotangent: Cotangent) -> Hits:
    hits = Hits([], [], [], [])
    for number, (image, names, masks) in enumerate(zip(val.images, val.names, val.masks, strict=True)):
        texts = [CAPTIONS[NAMES.index(name)] for name in names]
        branch = image_branch(encoder, image[None])
        pairs = explain_pairs(encoder, branch, [0] * len(texts), texts, cotangent)
        union = np.any(masks, axis=0)
        for own, map in enumerate(pairs.heatmap.numpy()):
            others = [mask for place, mask in enumerate(masks) if place != own]
            hits.named.append(points_inside(map, masks[own]))
            hits.any.append(points_inside(map, union))
            hits.other.append(float(np.mean([points_inside(map, mask) for mask in others])))
            hits.scene.append(number)
    return hits


def _text(values: Sequence[float], groups: Sequence[int]) -> str:
    found: Estimate = mean(values, groups, 0)
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def report(encoder: DualEncoder, untrained: DualEncoder, val: Scenes) -> None:
    """A row of a Markdown table for each way to explain."""
    towers = encoder.network
    assert isinstance(towers, Towers)
    plain = replace(encoder, guided=False)
    at_features = replace(encoder, patches=towers.backbone)
    ways: list[tuple[str, DualEncoder, Cotangent]] = [
        ("V − F, guided, pixels", encoder, "joint"),
        ("score, guided, pixels", encoder, "score"),
        ("V − F, gradient, pixels", plain, "joint"),
        ("score, gradient, pixels", plain, "score"),
        ("V − F, gradient, features", at_features, "joint"),
        ("score, gradient, features", at_features, "score"),
        ("V − F, guided, pixels; random network", untrained, "joint"),
        ("score, guided, pixels; random network", untrained, "score"),
    ]
    print("| cotangent, rule, where | in the named object | in any object | in another caption's object |")
    print("|---|---|---|---|")
    for name, one, cotangent in ways:
        hits = measured(one, val, cotangent)
        cells = [_text(values, hits.scene) for values in (hits.named, hits.any, hits.other)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    areas = [float(mask.mean()) for masks in val.masks for mask in masks]
    union = [float(np.any(masks, axis=0).mean()) for masks in val.masks for _ in masks]
    print(f"| chance | {np.mean(areas):.3f} | {np.mean(union):.3f} | |")


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--seed", "seeds", multiple=True, type=int, default=(0, 1), help="Of a training; repeatable.")
@click.option("--epochs", default=6, show_default=True)
@click.option("--images", default=80, show_default=True, help="Scenes of the val split to explain.")
def main(run: Path, seeds: tuple[int, ...], epochs: int, images: int) -> None:
    """Tables for RUN, a table for each seed."""
    config = load(CONFIG, [f"root={run}"])
    model = load_checkpoint(run / "model.safetensors")
    val = scenes(model, config, images)
    for seed in seeds:
        torch.manual_seed(seed)
        untrained, towers = (Towers(one.backbone, one.head.channels) for one in (_random(model), model))
        train(towers, run, config, epochs)
        encoder = as_encoder(towers, model)
        right = _right(encoder, val)
        count = sum(map(len, val.names))
        print(f"\nseed {seed}: likeliest caption true of its scene {right:.3f} (n = {len(val.names)}); "
              f"{count} captions\n")  # fmt: skip
        report(encoder, as_encoder(untrained.eval().requires_grad_(False), model), val)


def _random(model: VQAModel) -> VQAModel:
    """The model with a backbone of random weights."""
    from hvx.models.backbone import build_backbone

    backbone = build_backbone(model.config.backbone.model_copy(update={"weights": None}))
    return replace(model, backbone=backbone)


def _right(encoder: DualEncoder, val: Scenes) -> float:
    """The share of scenes of which the likeliest of all captions is true."""
    with torch.no_grad():
        v = functional.normalize(encoder.image_tower(torch.stack(val.images)), dim=1)
        t = functional.normalize(encoder.text_tower(encode(CAPTIONS)), dim=1)
    best = (v @ t.t()).argmax(1).tolist()
    return float(np.mean([NAMES[place] in names for place, names in zip(best, val.names, strict=True)]))


if __name__ == "__main__":
    main()
