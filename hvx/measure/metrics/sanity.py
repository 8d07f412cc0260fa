"""Does a map depend on what the network learned? (Adebayo et al. 2018, cascading randomization)"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from hvx.extras import require
from hvx.measure.methods.computer import SaliencyComputer
from hvx.measure.methods.registry import ATTENTION, PROPOSED
from hvx.measure.metrics.agreement import rank_correlation
from hvx.measure.metrics.localization import enlarged
from hvx.measure.sample import EvaluationSample
from hvx.models.checkpoint import VQAModel
from hvx.progress import bar

CHECKED = (PROPOSED, ATTENTION, "unguided", "grad-cam", "guided-backpropagation", "gradient")
"""The methods whose maps are tested, if they are measured."""

OTHER_IMAGE = "another image"
"""Not a stage: the similarity of the trained network's maps of two images, for comparison."""

_FEWEST_BLOCKS = 3
_WINDOW = 7
"""Window of SSIM."""


def randomized(model: VQAModel, seed: int) -> Iterator[tuple[str, VQAModel]]:
    """Yield a copy of a model whose blocks are randomized one after the other, from the classifier down.

    The values of each tensor of a block are shuffled. Adebayo et al. draw new values; shuffled values keep
    their scale, so that no layer dies or overflows, and BatchNorm's variances stay positive.

    Yields:
        The block randomized last, and the model: always the same object, further randomized.
    """
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    for name, tensors in _blocks(model):
        for tensor in tensors:
            order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
            with torch.no_grad():
                tensor.copy_(tensor.flatten()[order].view_as(tensor))
        yield name, model


def _blocks(model: VQAModel) -> list[tuple[str, list[Tensor]]]:
    """The network's blocks from the top, each with its tensors: of the head, then of the backbone."""
    parts: dict[str, list[nn.Module]] = {"classifier": [], "V and Q": [], "attention": [], "question": []}
    for name, module in model.head.named_children():
        parts[_part(name)].append(module)
    blocks = [
        (name, [tensor for module in modules for tensor in _float_tensors(module)])
        for name, modules in parts.items()
    ]
    return [(name, tensors) for name, tensors in blocks if tensors] + _backbone_blocks(model.backbone.network)


def stages(model: VQAModel) -> list[str]:
    """The blocks that ``randomized`` yields, in its order."""
    return [name for name, _ in _blocks(model)]


def _part(child: str) -> str:
    """The block of a head that a child module belongs to, by its name."""
    if child in ("classifier", "output"):
        return "classifier"
    if child.startswith(("attention", "memory", "output_")):
        return "attention"
    return "question" if child in ("encoder", "from_the_end") else "V and Q"


def _backbone_blocks(network: GraphModule) -> list[tuple[str, list[Tensor]]]:
    """The backbone's blocks, last first, by the first part of their names, or two parts if those are few."""
    leaves = list(dict.fromkeys(str(node.target) for node in network.graph.nodes if node.op == "call_module"))
    for depth in (1, 2):
        blocks: dict[str, list[Tensor]] = {}
        for leaf in leaves:
            tensors = _float_tensors(network.get_submodule(leaf))
            if tensors:
                blocks.setdefault(".".join(leaf.split(".")[:depth]), []).extend(tensors)
        if len(blocks) >= _FEWEST_BLOCKS:
            break
    return list(blocks.items())[::-1]


def _float_tensors(module: nn.Module) -> list[Tensor]:
    """A module's parameters and statistics."""
    return [tensor for tensor in module.state_dict().values() if tensor.is_floating_point()]


def similarity(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """The similarity of two maps (H, W): rank correlation of their pixels, and SSIM of the maps in [0, 1]."""
    from skimage.metrics import structural_similarity

    side = min(_WINDOW, *first.shape)
    window = side - (side + 1) % 2
    ssim = structural_similarity(_unit(first), _unit(second), win_size=window, data_range=1.0)
    return rank_correlation(first, second), float(ssim)


def check_installed() -> None:
    """Reject the measure if its library is not installed, before any work is done.

    Raises:
        HvxError: says what to install.
    """
    require("measure", "SSIM", "skimage", hint=", or give --sanity 0")


def make_similarities(sample: EvaluationSample, names: list[str], count: int, seed: int) -> dict[str, Any]:
    """The similarity of maps before and after randomization, for the sample's first ``count`` explanations.

    Returns:
        By method and stage (the block randomized last), (rank correlation, SSIM) of each explanation.
    """
    checked = [name for name in names if name in CHECKED]
    before = _maps(sample, sample.model, checked, count)
    similarities: dict[str, dict[str, list[tuple[float, float]]]] = {name: {} for name in checked}
    others = _on_another_image(sample, count)
    for name in checked:
        similarities[name][OTHER_IMAGE] = [
            similarity(before[name][position], before[name][other]) for position, other in enumerate(others)
        ]
    total = len(stages(sample.model))
    for stage, model in bar(randomized(sample.model, seed), "randomizing", "block", total=total):
        after = _maps(sample, model, checked, count)
        for name in checked:
            pairs = zip(before[name], after[name], strict=True)
            similarities[name][stage] = [similarity(*pair) for pair in pairs]
    return similarities


def _maps(
    sample: EvaluationSample, model: VQAModel, names: list[str], count: int
) -> dict[str, list[np.ndarray]]:
    """Maps of a model by method and explanation, at the images' size."""
    computer = SaliencyComputer(model, 0)
    by_method = {name: [np.empty(0)] * count for name in names}
    for batch in sample.batches(range(count)):
        for name, maps in computer.maps(names, batch).items():
            for position, map in zip(batch.positions, maps, strict=True):
                by_method[name][position] = enlarged(map, sample.size).astype(np.float32)
    return by_method


def _on_another_image(sample: EvaluationSample, count: int) -> list[int]:
    """For each explanation the next one of another image; itself if all are of one image."""
    images = sample.images[:count].tolist()
    following = ([(position + step) % count for step in range(count)] for position in range(count))
    return [
        next((other for other in candidates if images[other] != images[position]), position)
        for position, candidates in enumerate(following)
    ]


def _unit(map: np.ndarray) -> np.ndarray:
    low, high = float(map.min()), float(map.max())
    return (map - low) / (high - low) if high > low else np.zeros_like(map)
