"""The backbone of the built-in split learns what lies in each cell of its lattice, then is frozen."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from hvx.config import Config, SplitConfig
from hvx.data.images import image_path, load_input
from hvx.data.objects import ObjectTable
from hvx.data.scenes import COLORS, SHAPES
from hvx.errors import HvxError
from hvx.models.backbone import Backbone, cut_network, new_network
from hvx.progress import bar
from hvx.train.schedule import warm_cosine

UNCERTAIN = -100
"""Label of a cell that an object's edge crosses; the loss leaves it out."""
_SURE = 0.5
"""An object owns a cell when it covers this share of it."""
_EMPTY = 0.05
"""A cell with less than this share covered is ground."""


def cell_labels(mask: np.ndarray, objects: list[dict[str, Any]], lattice: int) -> np.ndarray:
    """What lies in each cell: (2, S, S) int64, colour and shape, 0 for ground.

    Args:
        mask: (H, W) label mask.
        objects: the scene's objects, ``label``, ``color`` and ``shape``.
        lattice: S; H and W are multiples of it.
    """
    side = mask.shape[0] // lattice
    blocks = mask.reshape(lattice, side, lattice, side)
    labels = np.full((2, lattice, lattice), UNCERTAIN, np.int64)
    labels[:, (blocks > 0).mean((1, 3)) < _EMPTY] = 0
    for item in objects:
        owned = (blocks == item["label"]).mean((1, 3)) >= _SURE
        labels[0, owned] = 1 + list(COLORS).index(item["color"])
        labels[1, owned] = 1 + SHAPES.index(item["shape"])
    return labels


def _load(split: SplitConfig, config: Config, lattice: int) -> tuple[Tensor, Tensor]:
    """All images (B, C, H, W) and their cells' labels (B, 2, S, S)."""
    table = ObjectTable(split)
    size = config.model.image.size
    if size % lattice:
        raise HvxError(
            f"model.image.size: {size} is no multiple of the backbone's {lattice}×{lattice} lattice"
        )
    inputs, labels = [], []
    for image_id, objects in bar(table.objects.items(), "reading scenes", "scene", len(table.objects)):
        inputs.append(load_input(image_path(split, image_id), config.model.image))
        mask = Image.fromarray(table.mask(image_id)).resize((size, size), Image.Resampling.NEAREST)
        labels.append(torch.from_numpy(cell_labels(np.asarray(mask), objects, lattice)))
    return torch.stack(inputs), torch.stack(labels)


def train_backbone(config: Config, split: SplitConfig, device: torch.device) -> Backbone:
    """Train the config's backbone on the cells of a built-in split and freeze it.

    Raises:
        HvxError: the split has no table of objects.
    """
    if split.objects is None:
        raise HvxError(
            "train.backbone_epochs: only a split with a table of objects (`hvx scenes`) can train a backbone;"
            " set it to 0, or give splits.*.objects"
        )
    torch.manual_seed(config.seed)
    network = cut_network(config.model.backbone, new_network(config.model.backbone.architecture)).to(device)
    size = config.model.image.size
    with torch.no_grad():
        channels, lattice = network(torch.zeros(2, 3, size, size, device=device))["features"].shape[1:3]
    inputs, labels = _load(split, config, lattice)
    heads = nn.Conv2d(channels, 2 + len(COLORS) + len(SHAPES), 1).to(device)
    optimise(config, network, heads, inputs, labels, device)
    return Backbone(network)


def optimise(
    config: Config, network: nn.Module, heads: nn.Module, inputs: Tensor, labels: Tensor, device: torch.device
) -> None:
    """Minimise the cross-entropy of each cell's colour and shape with AdamW under a warm cosine."""
    train = config.train
    parameters = [*network.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=train.backbone_rate, weight_decay=0.01)
    shuffle = torch.Generator().manual_seed(config.seed)
    batches = [
        b
        for _ in range(train.backbone_epochs)
        for b in torch.randperm(len(inputs), generator=shuffle).split(train.backbone_batch)
    ]
    schedule = warm_cosine(optimiser, len(batches))
    network.train()
    for batch in bar(batches, "training the backbone", "batch"):
        logits = heads(network(inputs[batch].to(device))["features"])
        truth = labels[batch].to(device)
        color, shape = logits.split((1 + len(COLORS), 1 + len(SHAPES)), dim=1)
        loss = functional.cross_entropy(color, truth[:, 0], ignore_index=UNCERTAIN)
        loss = loss + functional.cross_entropy(shape, truth[:, 1], ignore_index=UNCERTAIN)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
