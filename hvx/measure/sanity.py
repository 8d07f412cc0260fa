"""Does a map depend on what the network learned? (Adebayo et al. 2018, cascading randomization)"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from hvx.errors import HvxError
from hvx.measure.agreement import rank_correlation
from hvx.measure.localization import enlarged
from hvx.measure.mapper import Mapper
from hvx.measure.methods import ATTENTION, PROPOSED
from hvx.measure.subject import Subject
from hvx.models.checkpoint import VQAModel
from hvx.progress import bar

CHECKED = (PROPOSED, ATTENTION, "unguided", "grad-cam", "guided-backpropagation", "gradient")
"""The methods whose maps are put to the test, of those that are measured."""

OTHER_IMAGE = "another image"
"""Not a stage: how alike the trained network's maps of two images are, for comparison."""

_FEWEST_BLOCKS = 3
_WINDOW = 7
"""Of SSIM."""


def randomized(model: VQAModel, seed: int) -> Iterator[tuple[str, VQAModel]]:
    """Copies of a model whose blocks lose what they learned, one more each time, from the answer downwards.

    The values of each tensor of a block are shuffled. Adebayo et al. draw them anew; shuffled ones keep
    their scale, so that no layer dies or overflows, and BatchNorm's variances stay positive.

    Yields:
        The block that was randomized last, and the model; always the same one, further randomized.
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
    """The network's blocks from the top, each with its numbers: of the head, then of the backbone."""
    parts: dict[str, list[nn.Module]] = {"classifier": [], "V and Q": [], "attention": [], "question": []}
    for name, module in model.head.named_children():
        parts[_part(name)].append(module)
    found = [
        (name, [tensor for module in modules for tensor in _numbers(module)])
        for name, modules in parts.items()
    ]
    return [(name, tensors) for name, tensors in found if tensors] + _backbone_blocks(model.backbone.network)


def stages(model: VQAModel) -> list[str]:
    """The blocks that ``randomized`` yields, in its order."""
    return [name for name, _ in _blocks(model)]


def _part(child: str) -> str:
    """Which block of a head one of its modules belongs to, by its name."""
    if child in ("classifier", "output"):
        return "classifier"
    if child.startswith(("attention", "memory", "output_")):
        return "attention"
    return "question" if child in ("encoder", "from_the_end") else "V and Q"


def _backbone_blocks(network: GraphModule) -> list[tuple[str, list[Tensor]]]:
    """The backbone's blocks, last first, by the first part of their names; by two where those are too few."""
    leaves = list(dict.fromkeys(str(node.target) for node in network.graph.nodes if node.op == "call_module"))
    for depth in (1, 2):
        blocks: dict[str, list[Tensor]] = {}
        for leaf in leaves:
            own = _numbers(network.get_submodule(leaf))
            if own:
                blocks.setdefault(".".join(leaf.split(".")[:depth]), []).extend(own)
        if len(blocks) >= _FEWEST_BLOCKS:
            break
    return list(blocks.items())[::-1]


def _numbers(module: nn.Module) -> list[Tensor]:
    """A module's parameters and statistics."""
    return [tensor for tensor in module.state_dict().values() if tensor.is_floating_point()]


def similarity(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """How alike two maps (H, W) are: rank correlation of their pixels, and SSIM of the maps in [0, 1]."""
    from skimage.metrics import structural_similarity

    side = min(_WINDOW, *one.shape)
    window = side - (side + 1) % 2
    alike = structural_similarity(_unit(one), _unit(other), win_size=window, data_range=1.0)
    return rank_correlation(one, other), float(alike)


def check_installed() -> None:
    """Refuse, ahead of any work, what needs a library that is not installed.

    Raises:
        HvxError: says what to install.
    """
    if not find_spec("skimage"):
        raise HvxError("SSIM needs scikit-image; pip install 'hvx[measure]', or give --sanity 0")


def make_similarities(subject: Subject, names: list[str], count: int, seed: int) -> dict[str, Any]:
    """How alike maps before and after randomization are, for the sample's first ``count`` explanations.

    Returns:
        By method and stage (the block randomized last), (rank correlation, SSIM) of each explanation.
    """
    checked = [name for name in names if name in CHECKED]
    before = _maps(subject, subject.model, checked, count)
    found: dict[str, dict[str, list[tuple[float, float]]]] = {name: {} for name in checked}
    others = _on_another_image(subject, count)
    for name in checked:
        found[name][OTHER_IMAGE] = [
            similarity(before[name][place], before[name][other]) for place, other in enumerate(others)
        ]
    total = len(stages(subject.model))
    for stage, model in bar(randomized(subject.model, seed), "randomizing", "block", total=total):
        after = _maps(subject, model, checked, count)
        for name in checked:
            pairs = zip(before[name], after[name], strict=True)
            found[name][stage] = [similarity(one, other) for one, other in pairs]
    return found


def _maps(subject: Subject, model: VQAModel, names: list[str], count: int) -> dict[str, list[np.ndarray]]:
    """Maps of a model by method and explanation, at the images' size."""
    mapper = Mapper(model, 0)
    found = {name: [np.empty(0)] * count for name in names}
    for batch in subject.batches(range(count)):
        for name, maps in mapper.maps(names, batch).items():
            for place, map in zip(batch.places, maps, strict=True):
                found[name][place] = enlarged(map, subject.size).astype(np.float32)
    return found


def _on_another_image(subject: Subject, count: int) -> list[int]:
    """For each explanation the next one that is of another image; itself where all are of one."""
    images = subject.images[:count].tolist()
    nexts = ([(place + step) % count for step in range(count)] for place in range(count))
    return [
        next((other for other in own if images[other] != images[place]), place)
        for place, own in enumerate(nexts)
    ]


def _unit(map: np.ndarray) -> np.ndarray:
    low, high = float(map.min()), float(map.max())
    return (map - low) / (high - low) if high > low else np.zeros_like(map)
