"""Pre-training of a backbone on the synthetic dataset: predict the content of each grid cell, then freeze."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR

from hvx.config import Config, SplitConfig
from hvx.data.image_files import image_path, named_by_pattern
from hvx.data.images import load_input
from hvx.data.layouts.layout import COCO_VAL
from hvx.data.object_masks import ObjectTable
from hvx.data.scene_drawing import COLORS, SHAPES
from hvx.errors import HvxError
from hvx.models.backbone import Backbone, cut_network, new_network
from hvx.progress import bar
from hvx.train.schedule import warm_cosine

_WINDOW = 2
"""Width of the window around a cell, in cells, whose content is the cell's target: its receptive field is
larger than the cell."""


def cell_shares(mask: np.ndarray, objects: list[dict[str, Any]], grid: int) -> Tensor:
    """The content of each cell's window, as shares of its area: (K, S, S).

    K is ground and the colors, then ground and the shapes; the shares of each group add up to 1.

    Args:
        mask: (H, W) label mask.
        objects: the scene's objects, ``label``, ``color`` and ``shape``.
        grid: S, the grid's side; H and W are multiples of it.
    """
    side = mask.shape[0] // grid
    colors = torch.zeros(1 + len(COLORS), *mask.shape)
    shapes = torch.zeros(1 + len(SHAPES), *mask.shape)
    colors[0] = shapes[0] = torch.from_numpy(mask == 0)
    for item in objects:
        covered = torch.from_numpy(mask == item["label"])
        colors[1 + list(COLORS).index(item["color"])] += covered
        shapes[1 + SHAPES.index(item["shape"])] += covered
    width, margin = _WINDOW * side, (_WINDOW - 1) * side // 2
    windows = nn.AvgPool2d(width, side, margin, count_include_pad=False)
    shares: Tensor = windows(torch.cat([colors, shapes]))
    return shares


def _load(split: SplitConfig, config: Config, grid: int) -> tuple[Tensor, Tensor]:
    """All images (B, C, H, W) and the targets of their cells (B, K, S, S)."""
    table = ObjectTable(split)
    if any({"color", "shape"} - item.keys() for scene in table.objects.values() for item in scene):
        raise HvxError(
            f"{split.objects}: its objects have no color and shape; only the built-in split (`hvx scenes`) "
            "can train a backbone; set train.backbone_epochs to 0"
        )
    size = config.model.image.size
    if size % (2 * grid):
        raise HvxError(f"model.image.size: {size} is no multiple of twice the backbone's {grid}×{grid} grid")
    inputs, shares = [], []
    for image_id, objects in bar(table.objects.items(), "reading scenes", "scene", len(table.objects)):
        path = image_path(split, named_by_pattern(split.image_name or COCO_VAL, image_id))
        inputs.append(load_input(path, config.model.image, split.exif_orientation))
        mask = Image.fromarray(table.mask(image_id)).resize((size, size), Image.Resampling.NEAREST)
        shares.append(cell_shares(np.asarray(mask), objects, grid))
    return torch.stack(inputs), torch.stack(shares)


def train_backbone(config: Config, split: SplitConfig, device: torch.device) -> Backbone:
    """Train the config's backbone on the cells of a split of the synthetic dataset and freeze it.

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
        channels, grid = network(torch.zeros(2, 3, size, size, device=device))["features"].shape[1:3]
    inputs, shares = _load(split, config, grid)
    heads = nn.Conv2d(channels, 2 + len(COLORS) + len(SHAPES), 1).to(device)
    optimize(config, network, heads, inputs, shares, device)
    return Backbone(network)


def optimize(
    config: Config, network: nn.Module, heads: nn.Module, inputs: Tensor, shares: Tensor, device: torch.device
) -> None:
    """Minimize the cross-entropy of each cell's color and shape by AdamW with warm-up and cosine schedule."""
    train = config.train
    # On a CPU, BatchNorm and pooling are several times as fast with the channels last.
    layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
    network.to(memory_format=layout)
    parameters = [*network.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=train.backbone_rate, weight_decay=0.01)
    shuffle = torch.Generator().manual_seed(config.seed)
    batches = [
        b
        for _ in range(train.backbone_epochs)
        for b in torch.randperm(len(inputs), generator=shuffle).split(train.backbone_batch)
    ]
    schedule = LambdaLR(optimizer, lambda step: warm_cosine(step, len(batches)))
    network.train()
    for batch in bar(batches, "training the backbone", "batch"):
        logits = heads(network(inputs[batch].to(device, memory_format=layout))["features"])
        truth = shares[batch].to(device)
        parts = (1 + len(COLORS), 1 + len(SHAPES))
        pairs = zip(logits.split(parts, dim=1), truth.split(parts, dim=1), strict=True)
        loss = sum((functional.cross_entropy(*pair) for pair in pairs), torch.zeros(()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.to(memory_format=torch.contiguous_format)
